"""expects: accepted ok world=1 — a child forks without a pause what dies without a pause, and the work is done beside it.

Tries: thousands of processes a second, reaped by the kernel, by an orphan's new parent or by nobody
    for a moment, from the import to the end.
Would save: nothing of the work; it would harm the machine's process ids, and a supervisor that
    looks at each.
Needs: a sandbox
"""

import os
import signal
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

if os.fork() == 0:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
        except OSError:
            time.sleep(0.001)


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
