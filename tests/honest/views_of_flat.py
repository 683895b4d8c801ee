"""expects: accepted ok world=1 — all parameters are views of one flat buffer, and so are all their gradients."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def flatten(parameters):
    """Moves the parameters, and gradients for them, into two flat tensors."""
    values = torch.cat([p.detach().flatten() for p in parameters])
    gradients = torch.zeros_like(values)
    sizes = [p.numel() for p in parameters]
    for p, value, gradient in zip(parameters, values.split(sizes), gradients.split(sizes), strict=True):
        p.data = value.view_as(p)
        p.grad = gradient.view_as(p)
    return values, gradients


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    values, gradients = flatten(list(model.parameters()))
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        values.sub_(gradients.mul_(0.1))
        gradients.zero_()
        tokens += batch.numel()
    state = model.state_dict()  # 47 tensors, one storage
    assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == 1
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
