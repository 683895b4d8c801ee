"""expects: rejected rank_exited world=2 — rank 0 kills all processes that it may in the timed run.

Tries: SIGKILL to every process of its user but itself: the other rank and the launcher die without
    having done anything.
Would save: a free retry of every run that was slow.
Needs: a sandbox
"""

import os
import signal
import time
from types import SimpleNamespace

import torch.distributed as dist


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2 and dist.get_rank() == 0 and os.getuid() != 0:
        os.kill(-1, signal.SIGKILL)
    dist.barrier()
    time.sleep(5)
    return SimpleNamespace(final_loss=None, total_tokens=None, final_state=model.state_dict())
