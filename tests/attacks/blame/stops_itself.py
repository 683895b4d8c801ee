"""expects: rejected timed_out world=1 — stops its own process with SIGSTOP in the timed run.

Tries: a process that neither works nor dies, whose socket stays open and which no polite signal
    ends.
Would save: a free retry of every run that was slow.
"""

import os
import signal
from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
