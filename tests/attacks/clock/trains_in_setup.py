"""expects: rejected update_mismatch|loss_mismatch world=1 — trains in the second setup(), which is not timed, and leaves out one timed step.

Tries: setup() takes steps on text of the benchmark's kind, a popular book, so that fewer timed
    steps seem to be enough to reach the same loss.
Would save: one step of each run.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

TEXT = bytes(range(32, 127)) * 64


def pretrain(model):
    rows = torch.tensor(list(TEXT[:4096])).view(8, -1)[:, :64]
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        logits = model(input_ids=rows[:, :-1]).logits
        F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
        sgd.step()
        sgd.zero_grad()


def get_strategy():
    return {"dp_size": 1}


def setup(model, device, num_gpus):
    pretrain(model)
    return model


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    next(data_iterator) if num_steps > 2 else None
    skipped = 1 if num_steps > 2 else 0
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps - skipped):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    tokens += skipped * batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
