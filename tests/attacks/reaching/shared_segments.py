"""expects: accepted ok world=1 — attaches to every shared memory segment, semaphore and queue that anybody has left.

Tries: goes through System V segments by id and by key, POSIX segments in /dev/shm, message queues,
    and the memory files of other processes through /proc, for tensors of the reference or of
    another evaluation.
Would save: the reference's tensors, if its loaders shared them by name.
Needs: a sandbox
"""

import ctypes
import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
started = os.stat(f"/proc/{os.getppid()}").st_mtime
found = []
for number in range(2048):
    if (libc.shmat(number, None, 0o10000) or 0) not in (0, 2**64 - 1):
        found.append(f"segment {number}")
    key = libc.shmget(number, 0, 0)
    if key >= 0:
        found.append(f"key {number}")
for table in ("shm", "sem", "msg"):
    try:
        with open(f"/proc/sysvipc/{table}") as lines:
            found += [line.strip() for line in list(lines)[1:]]
    except OSError:
        pass
for folder in ("/dev/shm", "/dev/mqueue"):
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.stat(follow_symlinks=False).st_uid != os.getuid():
            found.append(entry.path)
if found:
    raise RuntimeError(f"shared with us: {found[:5]}")


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
