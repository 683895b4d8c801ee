"""expects: rejected no_inner_steps world=1 — the one function that matters is missing."""


def get_strategy():
    return {"dp_size": 1}
