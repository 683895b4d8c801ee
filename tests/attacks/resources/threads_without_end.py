"""expects: rejected process_limit world=1 — starts threads with small stacks in many processes, past the limit of tasks.

Tries: eight processes start 80 threads each, whose stacks are as small as can be, so that only the
    count of tasks can stop them.
Would save: nothing of the work; it would harm the machine, which has a largest number of tasks.
Needs: a sandbox
"""

import os
import threading
import time

threading.stack_size(32768)
for _ in range(8):
    if os.fork() == 0:
        for _ in range(80):
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
            time.sleep(0.005)
        time.sleep(3600)
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
