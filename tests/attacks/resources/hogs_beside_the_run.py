"""expects: accepted ok world=1 — four children spin at the best priority they can get while the run is timed.

Tries: four processes in endless loops, with nice and scheduling class as strong as is allowed,
    bound to all cores, from the import to the end.
Would save: nothing: its own time is worse, and the machine was not busy with others.
Needs: a sandbox
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

for _ in range(4):
    if os.fork() == 0:
        for policy in (os.SCHED_RR, os.SCHED_FIFO, os.SCHED_BATCH):
            try:
                os.sched_setscheduler(0, policy, os.sched_param(1 if policy != os.SCHED_BATCH else 0))
            except OSError:
                pass
        while True:
            pass


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
