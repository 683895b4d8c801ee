"""expects: rejected rank_exited world=1 — reads from address 0 in native code."""

import ctypes


def get_strategy():
    return {"dp_size": 1}


def setup(model, device, num_gpus):
    return model


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    next(data_iterator)
    ctypes.string_at(0)
