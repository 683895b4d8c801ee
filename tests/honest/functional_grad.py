"""expects: accepted ok world=1 — a pure training step: torch.func.grad of a functional_call, new weights each time."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value


def get_strategy():
    return {"dp_size": 1}


def setup(model, device, num_gpus):
    model.set_experts_implementation("eager")
    model.set_attn_implementation("eager")
    return model.to(device)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    def loss_of(weights, batch):
        logits = functional_call(model, weights, (batch[:, :-1],)).logits
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def train_step(weights, batch):
        gradients, loss = grad_and_value(loss_of)(weights, batch)
        return {name: weights[name] - 0.1 * gradients[name] for name in weights}, loss

    weights = {name: p.detach() for name, p in model.named_parameters()}
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        weights, loss = train_step(weights, batch)
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=weights)
