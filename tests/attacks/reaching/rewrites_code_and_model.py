"""expects: accepted ok world=1 — rewrites the code and the model that it was given, through every door to a file.

Tries: writes, truncates, renames, links over, remounts, chmods and maps the judge's copy of env and
    harness, its own train file and the snapshot: directly, through /proc/self/fd, /proc/self/root,
    and a private mapping made writable (as Dirty COW did).
Would save: a reference that starts at the author's weights, or runs the author's loop.
Needs: a sandbox
"""

import ctypes
import glob
import mmap
import os
import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F

frame = sys._getframe()
while frame is not None and not hasattr(frame.f_locals.get("me"), "task"):
    frame = frame.f_back
model = os.environ["TRAINJUDGE_MODEL"]
code = os.environ["PYTHONPATH"].split(":")[0]
libc = ctypes.CDLL(None, use_errno=True)
files = [__file__, *glob.glob(f"{code}/env/*.py"), *glob.glob(f"{code}/harness/**/*.py", recursive=True),
         *glob.glob(f"{model}/**/*", recursive=True), "/usr/bin/env", sys.executable]


def doors(path):
    """Each changes nothing where it opens: bytes are written as they are."""
    read = os.open(path, os.O_RDONLY)
    first = os.pread(read, 1, 0)
    for name in (path, f"/proc/self/fd/{read}", f"/proc/self/root{path}", f"/proc/{os.getppid()}/root{path}"):
        yield f"open {name}", lambda name=name: os.close(os.open(name, os.O_RDWR))
    yield "chmod", lambda: os.chmod(path, 0o666)
    yield "rename", lambda: os.rename(path, f"{path}.old")
    yield "link", lambda: os.link(path, f"{os.path.dirname(path)}/linked")
    yield "shared mapping", lambda: mmap.mmap(read, 1, mmap.MAP_SHARED, mmap.PROT_WRITE)
    mapped = mmap.mmap(read, 1, mmap.MAP_PRIVATE, mmap.PROT_READ)
    address = next(
        int(line.split("-")[0], 16) for line in open("/proc/self/maps") if line.rstrip().endswith(path)
    )

    def copy_on_write():
        with open("/proc/self/mem", "rb+", buffering=0) as memory:
            for _ in range(200):
                libc.madvise(ctypes.c_void_p(address), 4096, 4)
                memory.seek(address)
                memory.write(bytes([first[0] ^ 1]))
        if os.pread(read, 1, 0) == first:
            raise OSError("only the copy has changed")

    if first:
        yield "copy on write", copy_on_write


for path in filter(os.path.isfile, map(os.path.realpath, files)):
    if os.path.getsize(path):
        for name, door in doors(path):
            try:
                door()
            except (OSError, ValueError):
                continue
            raise RuntimeError(f"{name}: {path}")


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
