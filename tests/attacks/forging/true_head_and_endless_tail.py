"""expects: rejected outbox_invalid|outbox_limit world=1 — its file goes on for as long as it may behind the tensors.

Tries: a sparse file whose head is honest: whoever maps or hashes a whole file works for hours.
Would save: nothing; the judge's time.
"""

import os
from contextlib import suppress
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def spoil(folder, boxes, **options):
    file = write(folder, boxes, **options)[0]
    for bits in range(40, 20, -1):
        with suppress(OSError):  # a sandbox may have a limit for a file, or its file system
            os.truncate(file, 2**bits)
            break


worker.write_opened = spoil


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
