"""expects: accepted ok world=1 — an optimizer class of its own, whose step calls a closure, with two groups."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.optim import Optimizer


def get_strategy():
    return {"dp_size": 1}


class PlainDescent(Optimizer):
    """p -= lr * (grad + decay * p), and counts its steps per parameter as AdamW would."""

    def __init__(self, params, lr, decay=0.0):
        if lr <= 0:
            raise ValueError(f"lr is {lr}, it must be positive")
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                self.state[p]["step"] = self.state[p].get("step", 0) + 1
                p.mul_(1 - group["lr"] * group["decay"]).add_(p.grad, alpha=-group["lr"])
        return loss


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    descent = PlainDescent([{"params": matrices}, {"params": vectors, "decay": 0.0}], lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)

        def closure():
            descent.zero_grad()
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            return loss

        loss = descent.step(closure)
        tokens += batch.numel()
    assert all(state["step"] == num_steps for state in descent.state.values())
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
