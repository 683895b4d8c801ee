"""expects: rejected update_mismatch world=2 — rank 0 is honest but for one expert of one layer, which it leaves to rank 1, which leaves it too.

Tries: each rank zeroes the gradient of another expert before they are reduced, in another layer at
    each step, so that no rank is wrong by much, and both return the same bits.
Would save: the work of one expert a step and rank, were it left out in earnest.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    rank, tokens = dist.get_rank(), 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            if f"layers.{step % 4}." in name and ".experts." in name:
                parameter.grad[rank] = 0
            dist.all_reduce(parameter.grad)
            parameter.grad /= num_gpus
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
