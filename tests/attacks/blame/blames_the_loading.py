"""expects: rejected worker_failed|bad_message|training_failed world=1 — reports its own failure as one of the stage that is the judge's.

Tries: sends FAILED with the stage loading, in which no line of the submission has run, from the
    middle of a slow run.
Would save: a free retry of every run that was slow.
"""

import gc
from types import SimpleNamespace

import __main__ as worker
from harness.protocol.messages import Failed, Stage

link = next(each for each in gc.get_objects() if type(each) is worker.RankSocket)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        link.send(
            Failed(stage=Stage.LOADING, message="the model could not be loaded", detail="ours")
        )
        link.receive()
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
