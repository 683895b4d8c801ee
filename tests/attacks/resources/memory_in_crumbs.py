"""expects: rejected memory_limit world=1 — two hundred processes hold a little each, and all together more than allowed.

Tries: 200 small programs that share nothing, each with 20 MiB of its own in scattered pages, below
    the size that anybody would notice.
Would save: nothing of the work; it would harm the machine's memory.
Needs: a sandbox
"""

import subprocess
import sys
import time

CRUMB = "import time; held = [bytearray(b'x' * 4096) for _ in range(5120)]; time.sleep(3600)"
for _ in range(200):
    subprocess.Popen([sys.executable, "-I", "-S", "-c", CRUMB])
    time.sleep(0.03)
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
