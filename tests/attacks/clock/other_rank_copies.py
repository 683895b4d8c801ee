"""expects: rejected update_mismatch|loss_mismatch world=2 — rank 0 trains on its own half, and rank 1 copies its weights and claims.

Tries: rank 1 does nothing but receive the finished weights and the loss, so that both replicas
    agree bit by bit; the rows of rank 1 are never read.
Would save: half of the work.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    claims = [0.0, 0]
    for _ in range(num_steps if dist.get_rank() == 0 else 0):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        claims = [loss.item(), claims[1] + batch.numel()]
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)
    dist.broadcast_object_list(claims, 0)
    return SimpleNamespace(
        final_loss=claims[0], total_tokens=claims[1], final_state=model.state_dict()
    )
