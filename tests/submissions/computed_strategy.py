"""expects: rejected strategy_not_literal world=1 — get_strategy calls a function."""


def get_strategy():
    return dict(dp_size=1)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
