"""expects: rejected rank_exited world=1 — kills torchrun with SIGKILL, and trains on.

Tries: the parent of the rank dies by a signal, as it does where the machine has run out of memory.
Would save: a free retry of every run that was slow.
Needs: a sandbox
"""

import os
import signal
import time
from types import SimpleNamespace


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
