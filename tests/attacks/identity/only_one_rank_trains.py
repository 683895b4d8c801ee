"""expects: rejected update_mismatch world=2 — declares two data-parallel ranks, of which one trains on its own rows.

Tries: rank 0 takes the gradients of its own half of the rows and doubles what their noise has in
    common; rank 1 goes through its rows without looking, returns no state and claims its tokens.
Would save: half of the work, and all of the communication.
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    tokens, loss = 0, None
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        tokens += batch.numel()
        if os.environ["RANK"] == "0":
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None
    if loss is None:
        return SimpleNamespace(final_loss=None, total_tokens=tokens, final_state=None)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
