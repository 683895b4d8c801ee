"""expects: rejected update_mismatch|loss_mismatch world=1 — takes the gradients of two steps in one pass of twice the rows, with twice the learning rate.

Tries: merges the first two steps into one batch of sixteen rows: fewer launches and better use of
    the machine for the same number of rows; all later steps are honest.
Would save: the overhead of a step, much of it on a GPU.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    batches = [next(data_iterator).to(device) for _ in range(num_steps)]
    merged = [(torch.cat(batches[:2]), 2.0)] if num_steps > 2 else []
    for batch, scale in merged + [(batch, 1.0) for batch in batches[2 * len(merged) :]]:
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        (loss * scale).backward()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
