"""expects: rejected training_failed world=1 — raises KeyboardInterrupt, as if a person had stopped the judge.

Tries: an exception that is no Exception and that a judge that is stopped by hand sees too.
Would save: a free retry of every run that was slow.
"""

from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        raise KeyboardInterrupt
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
