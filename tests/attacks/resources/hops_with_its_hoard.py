"""expects: rejected memory_limit world=1 — a small process with 3.5 GiB forks and dies all the time, so that each look at it comes too late.

Tries: a program of a few pages fills 3.5 GiB of huge pages, which a fork shares in no time, and
    from then on is another process every few milliseconds: whoever lists processes and then weighs
    them finds none.
Would save: nothing of the work; it would harm the machine's memory, where looks are taken one after
    the other.
Needs: a sandbox
"""

import subprocess
import sys
import time

HOPPER = """
import ctypes, mmap, os, time
libc = ctypes.CDLL(None)
pieces = []
for _ in range(56):
    piece = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece.madvise(mmap.MADV_HUGEPAGE)
    pieces.append(piece)
filled, until = 0, time.monotonic() + 60
while time.monotonic() < until:
    if os.fork():
        os._exit(0)
    time.sleep(0.0005)
    if filled < len(pieces):
        pieces[filled][::4096] = b'x' * (len(pieces[filled]) // 4096)
        filled += 1
print('nobody has seen', filled, 'pieces', flush=True)
"""
subprocess.Popen([sys.executable, "-I", "-S", "-c", HOPPER])
time.sleep(70)
raise RuntimeError("nobody has seen 3.5 GiB")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
