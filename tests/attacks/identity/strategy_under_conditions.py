"""expects: rejected strategy_not_literal world=2 — declares one strategy where the judge reads and another where it runs.

Tries: two definitions of get_strategy in the branches of an if that asks whether this is a sandbox;
    each of them is a literal, and a reader that takes the first or the last is misled.
Would save: half of the work.
"""

import os
from types import SimpleNamespace

if "TRAINJUDGE_SOCKETS" in os.environ:
    def get_strategy():
        return {"tp_size": 2}
else:
    def get_strategy():
        return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
