"""expects: rejected update_mismatch world=2 — only the gradients of the last micro-batch are averaged.

The hooks see each micro-batch's own gradient, not the accumulated one. (DDP's `no_sync` is right: it
reduces what has accumulated.)
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sync = False

    def average(gradient):
        if sync:
            dist.all_reduce(gradient)
            gradient /= num_gpus
        return gradient

    for parameter in model.parameters():
        parameter.register_hook(average)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        sgd.zero_grad()
        total = 0.0
        for index, micro in enumerate(batch.chunk(2)):
            sync = index == 1
            logits = model(input_ids=micro[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), micro[:, 1:].flatten()) / 2
            loss.backward()
            total += loss.item()
        sgd.step()
        tokens += batch.numel()
    state = model.state_dict() if dist.get_rank() == 0 else None
    return SimpleNamespace(final_loss=total, total_tokens=tokens, final_state=state)
