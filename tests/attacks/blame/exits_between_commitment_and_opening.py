"""expects: rejected rank_exited world=1 — ends with status 0 between its commitment and the opening.

Tries: a clean exit once the time is known, as if the launcher had thought that all was done.
Would save: a free retry of every run that was slow.
Needs: a sandbox
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker


def leave(folder, boxes, **options):
    os._exit(0)


worker.write_opened = leave


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
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
