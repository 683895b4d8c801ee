"""expects: rejected rank_exited world=2 — rank 1 is killed in step 3 while rank 0 waits in an all-reduce."""

import os
import signal
from types import SimpleNamespace

import torch
import torch.distributed as dist

calls = 0


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    global calls
    calls += 1  # the first call is the warm-up
    for step in range(num_steps):
        if calls == 2 and step == 2 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.zeros(1, device=device))
    return SimpleNamespace(final_loss=0.0, total_tokens=0, final_state=model.state_dict())
