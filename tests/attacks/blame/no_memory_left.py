"""expects: rejected training_failed|rank_exited world=1 — allows itself no memory and goes on.

Tries: lowers RLIMIT_AS below what it has, so that whatever is allocated next fails, in its own code
    or the worker's.
Would save: a free retry of every run that was slow.
"""

import resource
from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20))
    blocks = [bytearray(2**26) for _ in range(4)]
    return SimpleNamespace(
        final_loss=len(blocks), total_tokens=None, final_state=model.state_dict()
    )
