"""expects: rejected outbox_limit world=1 — makes more empty files than anybody needs.

Tries: 150,000 empty files and links in 300 folders of the outbox: no bytes at all, but the file
    system's inodes.
Would save: nothing of the work; it would harm the disk, which is full when its inodes are.
Needs: a sandbox
"""

import os
import time

outbox = os.environ["TRAINJUDGE_OUTBOX"]
for number in range(300):
    folder = f"{outbox}/{number}"
    os.mkdir(folder)
    os.mknod(f"{folder}/0")
    for other in range(1, 500):
        if other % 2:
            os.symlink("0", f"{folder}/{other}")
        else:
            os.link(f"{folder}/0", f"{folder}/{other}")
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
