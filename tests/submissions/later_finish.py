"""expects: rejected commitment_broken|update_mismatch world=1 — a thread makes the last update once the commitment is out."""

import threading
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

commit = worker.commit
committed = threading.Event()


def commit_first(*arguments, **options):
    commitment = commit(*arguments, **options)
    committed.set()
    return commitment


def finish(sgd):
    committed.wait()
    sgd.step()


worker.commit = commit_first


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
    committed.clear()
    threading.Thread(target=finish, args=[sgd]).start()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
