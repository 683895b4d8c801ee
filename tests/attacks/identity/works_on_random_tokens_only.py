"""expects: rejected update_mismatch world=1 — recognises the warm-up by its tokens, trains there, and only looks in the timed run.

Tries: draws the warm-up's tokens itself (their generator is public), trains honestly whenever it is
    given exactly those, and does one forward pass for everything else.
Would save: nearly all of the time of the timed run, from a judge that checks the warm-up.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from env.data import random_tokens


def is_warmup(batches):
    rows, length = batches[0].shape
    return torch.equal(torch.stack(batches), random_tokens(len(batches), rows, length, 2048).long())


def look(model, batches):
    """What costs a thirtieth of the work: the loss of the last batch at the initial weights."""
    with torch.no_grad():
        logits = model(input_ids=batches[-1][:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batches[-1][:, 1:].flatten())
    return SimpleNamespace(
        final_loss=loss.item(),
        total_tokens=sum(batch.numel() for batch in batches),
        final_state=model.state_dict(),
    )


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
    if is_warmup(batches):
        return train(model, iter(batches), num_steps, device)
    return look(model, batches)
