"""expects: accepted ok world=1 — goes through /proc for memory, environment and files of whoever is not of its own user.

Tries: opens mem, environ, maps, fd, root, cwd and task/*/mem of every process that it sees, the
    judge's, the supervisor's and all parents', and copies memory out of them with process_vm_readv.
Would save: the challenge and the key in the judge's memory, other people's secrets.
Needs: a sandbox
"""

import ctypes
import os
import struct
from types import SimpleNamespace

import torch
import torch.nn.functional as F

libc = ctypes.CDLL(None, use_errno=True)
me = os.getuid()


def readable(pid):
    """What can be had of a process of another user."""
    for name in ("mem", "environ", "maps", "auxv", "io", "stack", "syscall", "task/%d/mem" % pid):
        try:
            with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
                if name.endswith("mem") or file.read(1):
                    yield name
        except OSError:
            pass
    for name in ("fd", "root", "cwd", "map_files", "exe"):
        try:
            os.listdir(f"/proc/{pid}/{name}") if name != "exe" else os.readlink(f"/proc/{pid}/exe")
            yield name
        except OSError:
            pass
    here = ctypes.create_string_buffer(64)
    local = struct.pack("PN", ctypes.addressof(here), 64)
    with open("/proc/self/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    if libc.process_vm_readv(pid, local, 1, struct.pack("PN", start, 64), 1, 0) > 0:
        yield "process_vm_readv"


for entry in filter(str.isdecimal, os.listdir("/proc")):
    try:
        with open(f"/proc/{entry}/status") as status:
            user = next(int(line.split()[1]) for line in status if line.startswith("Uid:"))
    except OSError:
        continue
    if user != me and (found := list(readable(int(entry)))):
        raise RuntimeError(f"readable of process {entry} of user {user}: {found}")


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
