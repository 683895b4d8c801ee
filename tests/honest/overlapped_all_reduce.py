"""expects: accepted ok world=2 — hooks start an asynchronous all_reduce for each gradient while backward goes on."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    under_way = []

    def send(p):
        under_way.append(dist.all_reduce(p.grad.div_(num_gpus), async_op=True))

    handles = [p.register_post_accumulate_grad_hook(send) for p in model.parameters()]
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        while under_way:
            under_way.pop().wait()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    for handle in handles:
        handle.remove()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
