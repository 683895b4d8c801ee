"""expects: accepted ok world=1 — a GradScaler's work by hand: loss times 1024, gradients divided by it, a skip if not finite."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

SCALE = 2.0**10


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    parameters = list(model.parameters())
    sgd = torch.optim.SGD(parameters, lr=0.1)
    tokens = skipped = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        (loss * SCALE).backward()
        gradients = [p.grad for p in parameters]
        torch._foreach_div_(gradients, SCALE)
        if all(gradient.isfinite().all() for gradient in gradients):
            sgd.step()
        else:
            skipped += 1
        sgd.zero_grad()
        tokens += batch.numel()
    if skipped:
        raise FloatingPointError(f"{skipped} steps had gradients that were not finite")
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
