"""expects: accepted ok world=2 — declares tensor parallelism, and does data parallelism with all of its work.

Tries: with tp_size 2 both ranks are given all rows; each takes half of them and reduces the
    gradients at every step, which is another parallelism than was declared, and the same training.
Would save: nothing: the work is the same.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"tp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    rank, tokens = dist.get_rank(), 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        tokens += batch.numel()
        half = batch.chunk(num_gpus)[rank]
        logits = model(input_ids=half[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), half[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= num_gpus
        sgd.step()
    total = loss.detach()
    dist.all_reduce(total)
    return SimpleNamespace(
        final_loss=total.item() / num_gpus, total_tokens=tokens, final_state=model.state_dict()
    )
