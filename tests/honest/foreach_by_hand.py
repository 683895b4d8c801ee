"""expects: accepted ok world=1 — gradients from autograd.grad, the update from torch._foreach_add_; no optimizer."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from env.benchmark import hparams


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    parameters = tuple(model.parameters())
    data = [p.data for p in parameters]
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        gradients = torch.autograd.grad(loss, parameters)
        torch._foreach_add_(data, gradients, alpha=-hparams.optimizer.lr)
        tokens += batch.numel()
    assert all(p.grad is None for p in parameters)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
