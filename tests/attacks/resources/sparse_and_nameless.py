"""expects: rejected outbox_limit world=1 — opens a file of holes that has no name, larger than the outbox may be.

Tries: files of 100 MiB of holes with a byte here and there, unlinked while open in several
    processes, some passed on and closed by their maker.
Would save: nothing of the work; it would harm the disk, if they are filled later; whoever copies
    them.
Needs: a sandbox
"""

import os
import time

outbox = os.environ["TRAINJUDGE_OUTBOX"]
for number in range(4):
    path = f"{outbox}/holes-{number}"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, 100 << 20)
    for place in range(0, 100 << 20, 1 << 16):
        os.pwrite(file, b"x", place)
    os.unlink(path)
    if os.fork() == 0:
        time.sleep(3600)
    os.close(file)
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
