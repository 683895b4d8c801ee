"""expects: accepted ok world=1 — renames, swaps and removes folders of the outbox as fast as it can while they are counted.

Tries: a child exchanges folders with links to /, /proc and the inbox, moves deep trees up and down
    and makes files large and small, so that a walk that follows a name ends elsewhere; all is gone
    before the state is opened.
Would save: nothing of the work; it would harm a supervisor that follows a link, counts for ever or
    fails.
Needs: a sandbox
"""

import ctypes
import os
import shutil
import signal
from types import SimpleNamespace

import torch
import torch.nn.functional as F

outbox = os.environ["TRAINJUDGE_OUTBOX"]
libc = ctypes.CDLL(None)


def churn():
    os.makedirs(f"{outbox}/a/b/c/d/e")
    for number, target in enumerate(("/", "/proc", "/proc/self/root", "..", f"{outbox}/a", "/dev/zero")):
        os.symlink(target, f"{outbox}/link{number}")
    while True:
        for number in range(6):
            for name in (f"{outbox}/a", f"{outbox}/a/b/c"):
                for _ in range(2):  # RENAME_EXCHANGE, there and back
                    libc.renameat2(-100, name.encode(), -100, f"{outbox}/link{number}".encode(), 2)
        with open(f"{outbox}/a/b/file", "ab") as file:
            file.truncate(64 << 20)
            file.truncate(0)
        os.rename(f"{outbox}/a/b", f"{outbox}/up")
        os.rename(f"{outbox}/up", f"{outbox}/a/b")


child = os.fork()
if child == 0:
    try:
        churn()
    finally:
        os._exit(0)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    result = train(model, data_iterator, num_steps, device)
    if num_steps > 1:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for name in os.listdir(outbox):
            path = f"{outbox}/{name}"
            os.unlink(path) if os.path.islink(path) else shutil.rmtree(path)
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
