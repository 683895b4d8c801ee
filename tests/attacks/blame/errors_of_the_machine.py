"""expects: rejected opening_failed world=1 — its opening fails with EIO, an error of a broken disk.

Tries: raises OSError with the number that the judge takes for its own machine's fault, after the
    clock has stopped and the time is known.
Would save: a free retry of every run that was slow.
"""

import errno
import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker


def broken(folder, boxes, **options):
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))


worker.write_opened = broken


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
