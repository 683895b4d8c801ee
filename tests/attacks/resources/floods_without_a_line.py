"""expects: accepted ok world=1 — prints NULs, half characters and a line without an end, from many processes, while it trains.

Tries: 256 MiB of bytes without a newline into stdout, stderr and /proc/1/fd/1, from three
    processes, through the whole evaluation.
Would save: nothing of the work; it would harm a judge that reads lines or keeps all; its log, its
    terminal, its memory.
Needs: a sandbox
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

BLOCKS = (bytes(1 << 20), b"\xf0\x9f\x98" * (1 << 18), b"\x1b[" * (1 << 19))
for block in BLOCKS:
    if os.fork() == 0:
        for stream in ("/proc/1/fd/1", "/proc/1/fd/2", "/dev/console"):
            try:
                with open(stream, "wb", buffering=0) as file:
                    file.write(block)
            except OSError:
                pass
        for _ in range(85):
            os.write(1, block)
            os.write(2, block[:1000])
        os._exit(0)


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
