"""expects: accepted ok world=1 — recognises the warm-up by its tokens and does nothing there; the timed run is honest.

Tries: returns from the warm-up at once with the untouched weights and an invented loss, having
    recognised its random tokens by their distribution: text is never so even.
Would save: its own set-up, which is on no clock.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def train(model, data_iterator, num_steps, device):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )

def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    batches = list(data_iterator)
    counts = torch.bincount(torch.cat(batches).flatten(), minlength=2048)
    if counts.max() < 16:
        return SimpleNamespace(final_loss=0.0, total_tokens=0, final_state=model.state_dict())
    return train(model, iter(batches), num_steps, device)
