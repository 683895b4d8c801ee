"""expects: rejected process_limit world=1 — six hundred processes whose names look like the end of a line of /proc.

Tries: each names itself ') Z 1 (x) Z 0 0', so that a reader of /proc/PID/stat that stops at the
    first parenthesis takes it for a zombie with another parent and no threads.
Would save: processes beyond the limit, that nobody counts or ends.
Needs: a sandbox
"""

import ctypes
import os
import time

libc = ctypes.CDLL(None)
for number in range(600):
    try:
        child = os.fork()
    except OSError:  # the kernel's own limit, a little above the judge's
        break
    if child == 0:
        libc.prctl(15, (b") Z 1 (x) Z 0 0", b"x) X 0 0 0 (", b"\n1 (y) Z 0 0 0")[number % 3], 0, 0, 0)
        time.sleep(3600)
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
