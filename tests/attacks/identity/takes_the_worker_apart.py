"""expects: accepted ok world=1 — removes the worker's warm-up and set-up, and trains.

Tries: patches warm_up and set_up in the worker's module under both of its names, so that no warm-up
    takes place and setup() is never called; the timed run is honest.
Would save: its own set-up, which is on no clock.
"""

import sys
from types import SimpleNamespace

import env.worker
import torch
import torch.nn.functional as F

for worker in {sys.modules["__main__"], env.worker}:
    if hasattr(worker, "warm_up"):
        worker.warm_up = lambda *rest: None
        worker.set_up = lambda me, submission, model: model


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
