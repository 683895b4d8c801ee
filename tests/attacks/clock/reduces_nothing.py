"""expects: rejected update_mismatch world=2 — the all-reduce of gradients does nothing, and only rank 0 shows its state.

Tries: patches torch.distributed.all_reduce for itself; rank 1 returns no state, so that no
    differing replica shows that each rank trained on its own half.
Would save: all communication, and the work of rank 1.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F

dist.all_reduce = lambda tensor, *arguments, **options: tensor


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
        sgd.step()
        tokens += batch.numel()
    mine = model.state_dict() if dist.get_rank() == 0 else None
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=mine)
