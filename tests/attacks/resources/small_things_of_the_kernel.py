"""expects: accepted ok world=1 — takes timers, watches, events, queues and locks until there are none left.

Tries: inotify instances and watches, POSIX timers, signalfd, eventfd and timerfd, nested epolls,
    record locks, message queues, queued signals, keys.
Would save: nothing of the work; it would harm whoever on the machine needs one of these, if they
    are counted for all together.
Needs: a sandbox
"""

import ctypes
import fcntl
import os
import select
import signal
import tempfile
from types import SimpleNamespace

import torch
import torch.nn.functional as F

libc = ctypes.CDLL(None, use_errno=True)
held = []


def until_refused(most, call):
    for number in range(most):
        got = call(number)
        if got is None or got < 0:
            return


watcher = libc.inotify_init1(0)
until_refused(500, lambda number: libc.inotify_init1(0))
folder = tempfile.mkdtemp()
for number in range(2000):
    os.mkdir(f"{folder}/{number}")
until_refused(2000, lambda number: libc.inotify_add_watch(watcher, f"{folder}/{number}".encode(), 0xFFF))
timer = ctypes.c_void_p()
until_refused(100_000, lambda number: -abs(libc.timer_create(1, None, ctypes.byref(timer))) or 0)
until_refused(500, lambda number: libc.eventfd(0, 0))
until_refused(500, lambda number: libc.timerfd_create(1, 0))
for _ in range(300):
    held.append(select.epoll())
    if len(held) > 1:
        try:
            held[-1].register(held[-2])
        except OSError:
            pass
with tempfile.TemporaryFile() as file:
    for number in range(20_000):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, number * 2)
    held.append(os.dup(file.fileno()))
until_refused(100, lambda number: libc.mq_open(f"/q{number}".encode(), 0o102, 0o600, None))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
until_refused(100_000, lambda number: libc.sigqueue(os.getpid(), int(signal.SIGRTMIN), None))


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
