"""expects: accepted ok world=2 — gradients go over a process group of their own; metrics by all_gather_object over another."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    model = model.to(device)
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)  # they are equal already
    group = dist.new_group(list(range(num_gpus)))
    return DistributedDataParallel(model, process_group=group)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    metrics = dist.new_group(backend="gloo")
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
        said = [None] * num_gpus
        dist.all_gather_object(said, {"rank": dist.get_rank(), "loss": loss.item()}, group=metrics)
    mean = sum(each["loss"] for each in said) / num_gpus
    dist.destroy_process_group(metrics)
    # Only rank 0 has something to say.
    if dist.get_rank() != 0:
        return SimpleNamespace(final_loss=None, total_tokens=tokens, final_state=None)
    return SimpleNamespace(final_loss=mean, total_tokens=tokens, final_state=model.state_dict())
