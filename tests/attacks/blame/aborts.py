"""expects: rejected rank_exited world=1 — aborts in native code in the timed run.

Tries: os.abort leaves no exception and no message, and a core file where it may, as a fault of the
    driver does.
Would save: a free retry of every run that was slow.
Needs: a sandbox
"""

import os
from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        os.abort()
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
