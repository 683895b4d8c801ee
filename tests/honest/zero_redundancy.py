"""expects: accepted ok world=2 — torch's ZeroRedundancyOptimizer: each rank updates its parameters and sends them."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    return DistributedDataParallel(model.to(device), gradient_as_bucket_view=True)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    zero = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        zero.step()
        zero.zero_grad()
        tokens += batch.numel()
    state = model.module.state_dict() if dist.get_rank() == 0 else None
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
