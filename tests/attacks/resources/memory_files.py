"""expects: rejected memory_limit world=1 — holds more memory than allowed in memory files that it never maps.

Tries: memfd files of 64 MiB in four processes, written by splice from one buffer, so that no
    process has them in its own size.
Would save: nothing of the work; it would harm the machine's memory.
Needs: a sandbox
"""

import os
import time

block = bytes(16 << 20)
for _ in range(4):
    if os.fork() == 0:
        files = []
        for _ in range(14):
            files.append(os.memfd_create("m"))
            for _ in range(4):
                os.write(files[-1], block)
            time.sleep(0.05)
        time.sleep(3600)
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
