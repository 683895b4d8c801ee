"""expects: accepted ok world=2 — says two data-parallel ranks in its text and otherwise at run time; it trains as its text says.

Tries: after the import it replaces get_strategy by one that asks for tensor parallelism, and tells
    the worker's own assignment that there is one data-parallel rank, so that each rank would be
    given all rows and claim them.
Would save: nothing: the rows are dealt by what was read.
"""

import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F

sys.modules[__name__].__dict__["get_strategy"] = lambda: {"tp_size": 2}
frame = sys._getframe()
while frame is not None:
    task = getattr(frame.f_locals.get("me"), "task", None)
    if task is not None:
        try:
            task.dp_size = 1
        except AttributeError:
            pass  # it is frozen
    frame = frame.f_back


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= num_gpus
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
