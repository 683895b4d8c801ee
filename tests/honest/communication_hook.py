"""expects: accepted ok world=2 — DDP with a communication hook that sends float64 and divides after it has arrived."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel


def get_strategy():
    return {"dp_size": 2}


def in_float64(group, bucket):
    """Sums without rounding; returns a future of the mean."""
    sent = dist.all_reduce(bucket.buffer().double(), group=group, async_op=True).get_future()

    def arrived(future):
        return bucket.buffer().copy_(future.value()[0] / group.size())

    return sent.then(arrived)


def setup(model, device, num_gpus):
    model = DistributedDataParallel(model.to(device), bucket_cap_mb=1)
    model.register_comm_hook(dist.group.WORLD, in_float64)
    return model


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
