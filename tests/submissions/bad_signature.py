"""expects: rejected bad_signature world=1 — inner_steps takes only the model."""


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model):
    pass
