"""expects: rejected warmup_failed world=1 — raises on the first call of inner_steps."""


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    raise RuntimeError("in the warm-up")
