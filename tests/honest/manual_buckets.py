"""expects: accepted ok world=2 — gradients are averaged in buckets of a quarter of a MiB, packed and unpacked by hand."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch._utils import _flatten_dense_tensors as pack
from torch._utils import _take_tensors as buckets_of
from torch._utils import _unflatten_dense_tensors as unpack


def get_strategy():
    return {"dp_size": 2}


def average(gradients, bucket_bytes=2**18):
    for bucket in buckets_of(gradients, bucket_bytes):
        flat = pack(bucket)
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(bucket, unpack(flat, bucket), strict=True):
            gradient.copy_(mean)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    parameters = list(model.parameters())
    sgd = torch.optim.SGD(parameters, lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        average([p.grad for p in reversed(parameters)])
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
