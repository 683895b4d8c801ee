"""expects: rejected process_limit|memory_limit world=1 — every process forks, for ever, and each child starts a session of its own.

Tries: the plain fork bomb, deaf to all signals but one, with every process in its own session and
    group, reparented at once.
Would save: nothing of the work; it would harm the machine and the judge, which gets no processor
    time any more.
Needs: a sandbox
"""

import os
import signal
import time

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
        elif os.getppid() == 1:
            time.sleep(0.01)
    except OSError:
        time.sleep(0.01)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
