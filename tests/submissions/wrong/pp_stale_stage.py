"""expects: rejected update_mismatch world=1 — the second stage is updated with the gradients of the step before.

A pipeline of two stages, emulated in one process: the later layers' gradients arrive one step late, as
when the schedule does not drain before the optimizer steps.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    late = [p for layer in model.model.layers[2:] for p in layer.parameters()]
    stale = [torch.zeros_like(p) for p in late]
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for index, parameter in enumerate(late):
            parameter.grad, stale[index] = stale[index], parameter.grad
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
