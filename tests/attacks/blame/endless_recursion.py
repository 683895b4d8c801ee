"""expects: rejected training_failed|rank_exited world=1 — recurses without end, with the limit of recursion taken away.

Tries: a stack that overflows either as RecursionError, with a traceback of a thousand frames, or as
    a crash.
Would save: a free retry of every run that was slow.
"""

from types import SimpleNamespace


def deeper(depth):
    return deeper(depth + 1) + 1


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        deeper(0)
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
