"""expects: rejected commitment_broken world=1 — a forked child rewrites the opened files with the finished weights.

Tries: commits to the state before the last update; the weights lie in shared memory, a child makes
    the last update there and puts it into the outbox before OPENED is said.
Would save: the last update of every run.
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened
last = {}


def write_by_child(folder, boxes, **options):
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the others are not there after a fork: it would wait for them
        with torch.no_grad():
            for box in boxes:
                if (step := last.get(box.name)) is not None:
                    box.tensor.sub_(step)
        write(folder, boxes, **options)
        os._exit(0)
    os.waitpid(child, 0)


worker.write_opened = write_by_child


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        if step < num_steps - 1:
            sgd.step()
        tokens += batch.numel()
    last.update({name: 0.1 * p.grad for name, p in model.named_parameters()})
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
