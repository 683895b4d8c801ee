"""expects: accepted ok world=1 — fused SGD whose rate a LambdaLR sets; a hook after each step; gradients kept, set to zero."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    schedule = LambdaLR(sgd, lambda step: 1.0)
    norms = []
    sgd.register_step_post_hook(
        lambda which, *_: norms.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
    )
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        schedule.step()
        sgd.zero_grad(set_to_none=False)
        tokens += batch.numel()
    print("norms of the gradients:", torch.stack(norms).tolist())
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
