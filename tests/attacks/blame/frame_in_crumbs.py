"""expects: rejected timed_out world=1 — sends a frame of 60 KB one byte at a time.

Tries: every byte is an event for the judge and none completes a message; a deadline that starts
    again with every byte never comes.
Would save: nothing; the judge would be held for ever.
"""

import gc
import struct
import time
from types import SimpleNamespace

import __main__ as worker

link = next(each for each in gc.get_objects() if type(each) is worker.RankSocket)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        link._socket.sendall(struct.pack(">I", 60_000))
        while True:
            link._socket.sendall(b" ")
            time.sleep(0.01)
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
