"""expects: accepted ok world=1 — fills shared memory and the temporary folder until nothing fits, and trains.

Tries: writes /dev/shm, HOME and every other tmpfs it sees in pieces of 1 MiB until no space is left
    or 700 MiB lie there, and keeps it all.
Would save: nothing of the work; it would harm the machine's memory, in which a tmpfs lies.
Needs: a sandbox
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

block = os.urandom(1 << 20)
written = 0
for folder in ("/dev/shm", "/run", "/dev/mqueue", "/run/lock"):
    try:
        for number in range(700):
            with open(f"{folder}/filling-{number}", "wb") as file:
                written += file.write(block)
            if written > 700 << 20:
                break
    except OSError:
        continue


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
