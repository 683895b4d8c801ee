"""expects: rejected strategy_world_mismatch world=2 — the axes need six ranks."""


def get_strategy():
    return {"dp_size": 3, "ep_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
