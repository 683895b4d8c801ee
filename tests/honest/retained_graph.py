"""expects: accepted ok world=1 — backward in two parts through one graph: head first, then the trunk from its gradient."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def backward(model, batch):
    """Two halves of the positions share the trunk's output; gradients of both meet there."""
    hidden = model.model(input_ids=batch[:, :-1]).last_hidden_state
    leaf = hidden.detach().requires_grad_()
    logits = model.lm_head(leaf)
    losses = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
    early, late = losses.tensor_split(2)
    (early.sum() / losses.numel()).backward(retain_graph=True)
    (late.sum() / losses.numel()).backward()
    hidden.backward(leaf.grad)
    return losses.detach().mean()


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        loss = backward(model, batch)
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
