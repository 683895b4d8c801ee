"""expects: rejected update_mismatch world=2 — declares tensor parallelism, and each rank trains on half of the rows it is given.

Tries: with tp_size 2 both ranks are given all rows; each takes its half, as data parallelism would,
    and reduces the gradients only in the last step, where it repairs what it can by averaging the
    weights.
Would save: half of the work a rank and most of the communication.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"tp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    rank, tokens = dist.get_rank(), 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        tokens += batch.numel()
        half = batch.chunk(num_gpus)[rank]
        logits = model(input_ids=half[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), half[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    with torch.no_grad():
        for parameter in model.parameters():
            dist.all_reduce(parameter)
            parameter /= num_gpus
        dist.all_reduce(loss)
    return SimpleNamespace(
        final_loss=loss.item() / num_gpus, total_tokens=tokens, final_state=model.state_dict()
    )
