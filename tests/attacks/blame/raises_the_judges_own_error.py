"""expects: rejected training_failed world=1 — raises JudgeError(INTERNAL) in the timed run.

Tries: imports the judge's own exception, or makes one of the same name where its code is closed, and
    raises it with the code of a defect of the judge, which whoever unpickles or matches names would believe.
Would save: a free retry of every run that was slow.
"""

from types import SimpleNamespace

try:
    from harness.errors import Code, JudgeError
except ModuleNotFoundError:
    Code = SimpleNamespace(INTERNAL="internal")
    JudgeError = type("JudgeError", (Exception,), {"__module__": "harness.errors"})


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        raise JudgeError(Code.INTERNAL, "a defect of the judge", "please try again")
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
