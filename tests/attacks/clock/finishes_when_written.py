"""expects: rejected commitment_broken world=1 — the last update happens inside the opening, when the tensors are made contiguous.

Tries: commits to the state before the last update; write_opened gets boxes whose tensors finish
    themselves the moment that they are read.
Would save: the last backward pass and update.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

pending = []
write = worker.write_opened


def finish_and_write(folder, boxes, **options):
    for finish in pending:
        finish()
    pending.clear()
    return write(folder, boxes, **options)


worker.write_opened = finish_and_write


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
        tokens += batch.numel()
        if step == num_steps - 1 and num_steps > 2:
            pending.extend([loss.backward, sgd.step])
            continue
        loss.backward()
        sgd.step()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
