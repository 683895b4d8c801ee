"""expects: rejected strategy_not_literal world=2 — defines get_strategy twice, once in letters that only Python takes for the same.

Tries: after the literal stands a second definition whose name is written with compatibility
    characters, which Python normalises to the same name: who compares the text sees one definition,
    who runs it gets the other.
Would save: half of the work.
"""

from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 2}


def ｇｅｔ_strategy():
    return {"tp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
