"""expects: accepted ok world=1 — writes, syncs and reads the outbox again and again beside the training.

Tries: two children write 48 MiB each into the outbox, sync it, drop it from the page cache, read it
    and begin again, until the run is over.
Would save: nothing of the work; it would harm the disk's bandwidth and the page cache of everybody
    else.
Needs: a sandbox
"""

import os
import signal
from types import SimpleNamespace

import torch
import torch.nn.functional as F

outbox = os.environ["TRAINJUDGE_OUTBOX"]
children = []


def storm(path):
    block = os.urandom(16 << 20)
    for _ in range(30):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for _ in range(3):
            os.write(file, block)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(file, 48 << 20, 0)
        os.close(file)
    os._exit(0)


for number in range(2):
    children.append(os.fork())
    if children[-1] == 0:
        storm(f"{outbox}/storm-{number}")


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    result = train(model, data_iterator, num_steps, device)
    if num_steps > 1:
        for number, child in enumerate(children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.unlink(f"{outbox}/storm-{number}")
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
