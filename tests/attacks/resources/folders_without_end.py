"""expects: rejected outbox_limit world=1 — nests folders until no path can name the innermost.

Tries: 3,000 folders in each other, made by descriptor, each with the longest name there is: deeper
    than a path may be, than a recursion may be.
Would save: nothing of the work; it would harm the judge, which would have to remove them all.
Needs: a sandbox
"""

import os
import time

handle = os.open(os.environ["TRAINJUDGE_OUTBOX"], os.O_RDONLY)
for _ in range(3000):
    name = "d" * 255
    os.mkdir(name, dir_fd=handle)
    below = os.open(name, os.O_RDONLY, dir_fd=handle)
    os.close(handle)
    handle = below
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
