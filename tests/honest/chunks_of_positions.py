"""expects: accepted ok world=1 — head and loss in chunks of positions under checkpoint; whole logits never exist."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 100  # positions; does not divide their number


def get_strategy():
    return {"dp_size": 1}


def chunk_loss(hidden, weight, labels):
    return F.cross_entropy(F.linear(hidden, weight), labels, reduction="sum")


def mean_loss(model, batch):
    hidden = model.model(input_ids=batch[:, :-1]).last_hidden_state.flatten(0, 1)
    labels = batch[:, 1:].flatten()
    total = hidden.new_zeros(())
    for part, wanted in zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True):
        total = total + checkpoint(
            chunk_loss, part, model.lm_head.weight, wanted, use_reentrant=False
        )
    return total / labels.numel()


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        loss = mean_loss(model, batch)
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
