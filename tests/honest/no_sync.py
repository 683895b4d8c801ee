"""expects: accepted ok world=2 — DDP accumulates over micro-batches under no_sync and sends with the last one only."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP

MICRO_BATCHES = 2


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    return DDP(model.to(device), broadcast_buffers=False, static_graph=False)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        mean = 0.0
        for number, rows in enumerate(batch.chunk(MICRO_BATCHES), 1):
            with nullcontext() if number == MICRO_BATCHES else model.no_sync():
                logits = model(input_ids=rows[:, :-1]).logits
                loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()) / MICRO_BATCHES
                loss.backward()
            mean += loss.item()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    state = model.state_dict() if dist.get_rank() == 0 else None
    return SimpleNamespace(final_loss=mean, total_tokens=tokens, final_state=state)
