"""expects: rejected rank_exited world=1 — ends its process with status 0 in the timed run."""

import os
from types import SimpleNamespace

calls = 0


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    global calls
    calls += 1
    if calls == 2:  # the first call is the warm-up
        os._exit(0)
    return SimpleNamespace(final_loss=0.0, total_tokens=0, final_state=model.state_dict())
