"""expects: accepted ok world=1 — every nn.Linear replaced by a subclass with its own forward and backward."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn


def get_strategy():
    return {"dp_size": 1}


class Product(torch.autograd.Function):
    """x @ weight.T, with the two products of the backward pass written out."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        for_x = gradient @ weight if ctx.needs_input_grad[0] else None
        for_weight = torch.einsum("...o,...i->oi", gradient, x) if ctx.needs_input_grad[1] else None
        return for_x, for_weight


class Linear(nn.Linear):
    def forward(self, x):
        return Product.apply(x, self.weight)


def setup(model, device, num_gpus):
    for module in model.modules():
        if type(module) is nn.Linear:
            assert module.bias is None
            module.__class__ = Linear  # keeps parameters and names
    return model.to(device)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
