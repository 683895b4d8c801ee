"""expects: rejected update_mismatch world=2 — rank 0 commits what DDP trained, rank 1 the untrained weights."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    return DistributedDataParallel(model)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    untrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    state = model.state_dict() if dist.get_rank() == 0 else untrained
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
