"""expects: rejected outbox_limit|outbox_invalid world=1 — opens sparse files of 1 TiB, or as long as it may."""

import contextlib
import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write_opened = worker.write_opened


def write_and_spoil(folder, boxes, **options):
    write_opened(folder, boxes, **options)
    for file in list(folder.iterdir()):
        for size in (2**40, 2**27):  # the second if no file may become that long
            with contextlib.suppress(OSError):
                os.truncate(file, size)
                break


worker.write_opened = write_and_spoil


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
