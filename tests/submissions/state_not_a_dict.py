"""expects: rejected result_invalid world=1 — final_state is the model itself."""

from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return SimpleNamespace(final_loss=0.0, total_tokens=0, final_state=model)
