"""expects: accepted ok world=1 — inner_steps calls itself for every step, through the module that the worker calls.

Tries: recursion with one step each, in which the outer call returns what the innermost returned;
    the worker's function is entered again from inside, by its name in sys.modules, with the same
    iterator, and every level believes to be the only one.
Would save: nothing; a judge that counts calls or steps would count wrong.
"""

import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    batch = next(data_iterator, None)
    if batch is None:
        return SimpleNamespace(final_loss=None, total_tokens=0, final_state=model.state_dict())
    logits = model(input_ids=batch[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
            parameter.grad = None
    result = sys.modules["train"].inner_steps(model, data_iterator, optimizer, num_steps - 1, device, num_gpus=num_gpus)
    if result.final_loss is None:
        result.final_loss = loss.item()
    result.total_tokens += batch.numel()
    return result
