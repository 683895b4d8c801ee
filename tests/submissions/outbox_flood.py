"""expects: rejected outbox_limit world=1 — writes up to 1 GiB into the outbox."""

import os
import time

with open(os.environ["TRAINJUDGE_OUTBOX"] + "/flood", "wb") as file:
    for _ in range(1024):
        file.write(bytes(2**20))
time.sleep(3600)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
