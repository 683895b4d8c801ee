"""expects: accepted ok world=2 — losses are summed, and divided by a count of tokens that is itself reduced over the ranks."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.zeros((), dtype=torch.int64, device=device)
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        labels = batch[:, 1:].flatten()
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")
        loss.backward()
        whole = torch.stack([loss.detach(), loss.new_tensor(labels.numel())])
        dist.all_reduce(whole)
        total, count = whole.unbind()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= count
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    dist.all_reduce(tokens)  # of all ranks, as the loss is
    return SimpleNamespace(final_loss=total / count, total_tokens=tokens, final_state=model.state_dict())
