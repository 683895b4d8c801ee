"""expects: rejected setup_failed world=1 — raises in setup()."""


def get_strategy():
    return {"dp_size": 1}


def setup(model, device, num_gpus):
    raise RuntimeError("in setup")


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
