"""expects: rejected commitment_broken world=1 — a thread moves a weight by a hair between the commitment and the opening."""

import threading
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write_opened = worker.write_opened
weights = {}


def nudge():
    weights["lm_head.weight"][0, 0] += 1e-6


def nudge_and_write(*arguments, **options):
    thread = threading.Thread(target=nudge)
    thread.start()
    thread.join()
    write_opened(*arguments, **options)


worker.write_opened = nudge_and_write


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
    weights.update(model.state_dict())
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
