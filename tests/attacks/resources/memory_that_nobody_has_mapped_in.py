"""expects: rejected memory_limit world=1 — holds shared memory that is in no process's resident size.

Tries: fills a shared anonymous mapping of 3.5 GiB, piece by piece, and takes each piece out of its
    page tables again (madvise): the pages stay, but no process has them in its size and no
    descriptor leads to them.
Would save: nothing of the work; it would harm the machine's memory, where only resident pages are
    weighed.
Needs: a sandbox
"""

import mmap
import time

PIECE = 32 << 20
shared = mmap.mmap(-1, 3584 << 20)
for place in range(0, len(shared), PIECE):
    for page in range(place, place + PIECE, 4096):
        shared[page] = 1
    shared.madvise(mmap.MADV_DONTNEED, place, PIECE)
time.sleep(6)
with open("/proc/meminfo") as machine:
    print([" ".join(line.split()) for line in machine if line.startswith("Shmem:")])
raise RuntimeError("nobody has seen 3.5 GiB")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
