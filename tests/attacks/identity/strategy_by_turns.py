"""expects: rejected strategy_not_literal world=2 — declares another strategy each time it is asked.

Tries: get_strategy counts its calls and answers one rank, two data-parallel ranks and two
    tensor-parallel ranks in turn.
Would save: half of the work: rows dealt for one strategy, work counted for another.
"""

from types import SimpleNamespace

asked = 0


def get_strategy():
    global asked
    asked += 1
    return ({"dp_size": 2}, {"tp_size": 2}, {"dp_size": 1})[asked % 3]


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
