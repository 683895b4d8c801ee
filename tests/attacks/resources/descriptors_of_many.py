"""expects: rejected process_limit world=1 — forty processes hold four thousand descriptors each.

Tries: every process stays below its own limit of open files, and all together are at 160,000, each
    a descriptor of an epoll of its own.
Would save: nothing of the work; it would harm the machine, whose table of open files is
    everybody's.
Needs: a sandbox
"""

import os
import select
import time

for _ in range(40):
    if os.fork() == 0:
        held = [select.epoll() for _ in range(4000)]
        time.sleep(3600)
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
