"""expects: rejected memory_limit world=1 — makes every look at its processes slow, and then takes too much memory.

Tries: twenty processes with 20,000 mappings and 1,000 descriptors each, so that one look at /proc
    takes long, and one that fills 3.5 GiB meanwhile, in pieces that are mapped, unmapped and mapped
    again.
Would save: nothing of the work; it would harm the machine's memory, for as long as the look takes.
Needs: a sandbox
"""

import mmap
import os
import time

for _ in range(20):
    if os.fork() == 0:
        area = [mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ if number % 2 else mmap.PROT_WRITE)
                for number in range(20_000)]
        held = [os.dup(1) for _ in range(1000)]
        time.sleep(3600)
time.sleep(2)
hoard = []
for _ in range(56):
    hoard.append(b"x" * (64 << 20))
    time.sleep(0.02)
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
