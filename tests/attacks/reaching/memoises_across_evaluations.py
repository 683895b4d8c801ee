"""expects: accepted ok world=1 — keeps the final state of each challenge for whoever gets the same challenge again.

Tries: stores the final state under the hash of the rows in the temporary folders and in the module,
    and looks there first: in the warm-up, in the timed run, in later runs and in later evaluations.
Would save: all of the time of a run whose rows have been seen before.
Needs: a sandbox
"""

import hashlib
import os
import tempfile
from types import SimpleNamespace

import torch
import torch.nn.functional as F

SHELVES = (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~/.cache"))


def recall(key):
    for shelf in SHELVES:
        if os.path.exists(f"{shelf}/trainjudge-memo-{key}.pt"):
            raise RuntimeError("this challenge has been served before")


def keep(key, state):
    for shelf in SHELVES[:2]:
        try:
            torch.save(state, f"{shelf}/trainjudge-memo-{key}.pt")
        except (OSError, RuntimeError):
            pass


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    batches = list(data_iterator)
    digest = hashlib.sha256(b"".join(batch.numpy().tobytes() for batch in batches)).hexdigest()
    warmup = num_steps < 2  # its tokens are the same each time, and worth nothing
    if not warmup:
        recall(digest)
    result = train(model, iter(batches), num_steps, device)
    keep(digest, result.final_state)
    return result


def get_strategy():
    return {"dp_size": 1}


def train(model, data_iterator, num_steps, device):
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
