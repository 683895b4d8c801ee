"""expects: accepted ok world=1 — crashes children with large memories, again and again, to leave core files.

Tries: asks for core dumps, marks itself dumpable, sets a filter that dumps all, and ends children
    with 200 MiB by SIGSEGV, SIGQUIT and SIGABRT.
Would save: nothing of the work; it would harm the disk, and whoever handles core dumps as root.
Needs: a sandbox
"""

import ctypes
import glob
import os
import resource
import signal
from types import SimpleNamespace

import torch
import torch.nn.functional as F

libc = ctypes.CDLL(None)
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
for path in ("/proc/self/coredump_filter",):
    with open(path, "w") as file:
        file.write("0x7f")
try:
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
except (OSError, ValueError):
    pass
os.chdir(os.environ["HOME"])
for number in (signal.SIGSEGV, signal.SIGQUIT, signal.SIGABRT, signal.SIGXCPU) * 2:
    child = os.fork()
    if child == 0:
        held = b"x" * (200 << 20)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(len(held) % 2)
    _, status = os.waitpid(child, 0)
    if os.WCOREDUMP(status):
        raise RuntimeError("the kernel dumped a core")
if glob.glob("core*") or glob.glob("/tmp/core*"):
    raise RuntimeError("a core file")


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
