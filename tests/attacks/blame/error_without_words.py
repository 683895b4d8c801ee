"""expects: rejected rank_exited|training_failed world=1 — raises an exception whose __str__ and __repr__ raise SystemExit.

Tries: the worker's own description of the failure fails, with an exception that ends a program
    quietly and with status 0.
Would save: a free retry of every run that was slow.
"""

from types import SimpleNamespace


class Speechless(BaseException):
    def __str__(self):
        raise SystemExit(0)

    __repr__ = __str__


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        raise Speechless
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
