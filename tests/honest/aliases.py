"""expects: accepted ok world=2 — modules under other names, as many write them; DDP by hand."""

from types import SimpleNamespace as Result

import torch as t
import torch.distributed as d
import torch.nn.functional as f


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    o = t.optim.SGD(model.parameters(), lr=0.1)
    n = 0
    for _ in range(num_steps):
        b = next(data_iterator).to(device)
        l = f.cross_entropy(model(input_ids=b[:, :-1]).logits.flatten(0, 1), b[:, 1:].flatten())
        o.zero_grad()
        l.backward()
        for p in model.parameters():
            d.all_reduce(p.grad, d.ReduceOp.AVG)
        o.step()
        n += b.numel()
    return Result(final_loss=l.item(), total_tokens=n, final_state=model.state_dict())
