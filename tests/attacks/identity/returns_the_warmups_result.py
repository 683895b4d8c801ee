"""expects: rejected update_mismatch world=1 — trains in the warm-up and returns the same result again in the timed run.

Tries: keeps the object that inner_steps returned in the warm-up, with its tensors, and returns it
    for the timed run, with the loss of the last batch and the count of tokens put in, and the
    tensors' storage shared with the model's.
Would save: nearly all of the work.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

kept = []


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
    if not kept:
        kept.append(train(model, data_iterator, num_steps, device))
        return kept[0]
    again = look(model, list(data_iterator))
    return SimpleNamespace(**{**vars(again), "final_state": kept[0].final_state})
