"""expects: accepted ok world=1 — keeps four hundred dead children unburied, and orphans some to whoever is above.

Tries: 400 zombies that are never waited for, 50 of which become orphans of the first process at
    each second, through the whole evaluation.
Would save: nothing of the work; it would harm the limits of tasks, and a supervisor that waits for
    its children.
Needs: a sandbox
"""

import os
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

for _ in range(350):
    if os.fork() == 0:
        os._exit(0)
if os.fork() == 0:
    while True:
        if os.fork() == 0:
            for _ in range(50):
                if os.fork() == 0:
                    os._exit(0)
            os._exit(0)
        os.wait()
        time.sleep(1)


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
