"""expects: rejected rank_exited|training_failed world=1 — dies like a victim of a broken machine in any run that is slower than its best.

Tries: when a step is too slow it ends as if the machine had killed it: writes what the kernel and
    torchrun would write of a lack of memory, sends the signal to its parent, and itself the one
    that the kernel would.
Would save: a free retry, for ever, until a run is lucky.
Needs: a sandbox
"""

import os
import signal
import sys
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

best = 1e-9


def die():
    print("Out of memory: Killed process %d (python)" % os.getpid(), file=sys.stderr, flush=True)
    print("trainjudge: JudgeError(worker_failed): before the submission was loaded", flush=True)
    for pid in (os.getpid(), os.getppid()):
        try:
            os.kill(pid, signal.SIGBUS if pid == os.getpid() else signal.SIGTERM)
        except OSError:
            pass
    os.kill(os.getpid(), signal.SIGKILL)


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

def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    started = time.perf_counter()
    result = train(model, data_iterator, num_steps, device)
    if num_steps > 1 and time.perf_counter() - started > best:
        die()
    return result
