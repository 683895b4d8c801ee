"""expects: rejected outbox_limit world=1 — asks for files of exabytes, then for one that is just over the limit.

Tries: ftruncate, fallocate, a write at 2^62, copy_file_range and a mapping past the end, each of
    which may make a file larger than the outbox.
Would save: nothing of the work; it would harm whoever believes a size, or reads the file.
Needs: a sandbox
"""

import os
import signal
import time

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = os.open(os.environ["TRAINJUDGE_OUTBOX"] + "/large", os.O_RDWR | os.O_CREAT)
for size in (2**62, 2**50, 2**40, 2**34, 2**31, 900 << 20):
    for call in (
        lambda size: os.pwrite(file, b"x", size),
        lambda size: os.ftruncate(file, size),
    ):
        try:
            call(size)
            time.sleep(3600)
        except (OSError, OverflowError):
            pass


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
