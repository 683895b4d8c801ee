"""expects: rejected import_failed world=1 — raises while it is imported."""

raise RuntimeError("at import")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
