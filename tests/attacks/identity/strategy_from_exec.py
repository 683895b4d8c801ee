"""expects: rejected strategy_world_mismatch world=2 — makes get_strategy at run time, where no reader of the text can see it.

Tries: exec, globals() and setattr define get_strategy for two ranks in each of three ways; in the
    text there is none.
Would save: a strategy that nobody has read, chosen after the rows were dealt.
"""

import sys
from types import SimpleNamespace

exec("def get" + "_strategy():\n    return {'dp_size': 2}")
globals()["get_" + "strategy"] = lambda: {"dp_size": 2}
setattr(sys.modules[__name__], "get_strate" + "gy", lambda: {"dp_size": 2})


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
