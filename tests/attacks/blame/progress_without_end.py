"""expects: rejected timed_out world=1 — reports progress without end instead of training.

Tries: a flood of valid messages keeps the judge reading, so that it may never come to look at its
    deadline.
Would save: nothing; the judge would be held for ever.
"""

import gc
import struct
from types import SimpleNamespace

import __main__ as worker

link = next(each for each in gc.get_objects() if type(each) is worker.RankSocket)
body = b'{"type":"progress","stage":"training"}'
flood = (struct.pack(">I", len(body)) + body) * 500


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    while num_steps > 2:
        link._socket.sendall(flood)
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
