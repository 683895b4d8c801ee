"""expects: rejected memory_limit world=1 — a process whose first thread has ended holds more memory than allowed.

Tries: a child starts a thread and ends its first one alone (exit, not exit_group): /proc shows a
    zombie without memory or files, and the other thread fills 3.5 GiB.
Would save: nothing of the work; it would harm the machine's memory, where zombies are not weighed.
Needs: a sandbox
"""

import ctypes
import os
import threading
import time

libc = ctypes.CDLL(None)


def hoard():
    held = []
    for _ in range(56):
        held.append(b"x" * (64 << 20))
        time.sleep(0.05)
    time.sleep(3600)


child = os.fork()
if child == 0:
    threading.Thread(target=hoard).start()
    libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
time.sleep(12)
for task in os.listdir(f"/proc/{child}/task"):
    with open(f"/proc/{child}/task/{task}/status") as status:
        print(task, [" ".join(line.split()) for line in status if line.startswith(("State", "RssAnon"))])
raise RuntimeError("nobody has seen 3.5 GiB")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
