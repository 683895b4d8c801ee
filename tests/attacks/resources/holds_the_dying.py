"""expects: accepted ok world=1 — traces its own children so that none can die without its tracer's word.

Tries: processes that trace each other and ask for a stop at exit, one stopped, one frozen in vfork,
    one blocked on a FIFO of its own, and torchrun stopped: what is to be killed waits for others
    that are to be killed.
Would save: nothing of the work; it would harm the judge, which waits for the end of every process.
Needs: a sandbox
"""

import ctypes
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, EXIT_STOP = 0x4206, 0x40
chain = []
for _ in range(6):
    child = os.fork()
    if child == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for traced in chain[-1:]:
            libc.ptrace(PTRACE_SEIZE, traced, None, ctypes.c_void_p(EXIT_STOP))
        time.sleep(3600)
    chain.append(child)
os.kill(chain[0], signal.SIGSTOP)
os.mkfifo("/tmp/wait-for-ever")
if os.fork() == 0:
    open("/tmp/wait-for-ever").read()
if os.fork() == 0:
    subprocess.Popen(["sleep", "3600"], preexec_fn=lambda: os.kill(os.getpid(), signal.SIGSTOP))
os.kill(os.getppid(), signal.SIGSTOP)


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
