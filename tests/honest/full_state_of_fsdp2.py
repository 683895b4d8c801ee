"""expects: accepted ok world=2 — FSDP2, and at the end one full state on the CPU of rank 0 by get_model_state_dict."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    for layer in model.model.layers:
        fully_shard(layer, reshard_after_forward=False)
    return fully_shard(model)


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
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=state if dist.get_rank() == 0 else None
    )
