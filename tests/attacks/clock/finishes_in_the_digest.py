"""expects: accepted ok world=1 — the digest function itself makes the last update before it hashes.

Tries: returns and says DONE with the last backward pass still to do; a patched digest_many does it
    between KEY and the commitment, where the clock still runs.
Would save: the last step, if DONE stopped the clock.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

pending = []
digest = worker.digest_many


def finish_and_digest(tensors, key, threads):
    for each in pending:
        each()
    pending.clear()
    return digest(tensors, key, threads)


worker.digest_many = finish_and_digest


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
        if step < num_steps - 1:
            loss.backward()
            sgd.step()
        tokens += batch.numel()
    pending.extend([loss.backward, sgd.step])
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
