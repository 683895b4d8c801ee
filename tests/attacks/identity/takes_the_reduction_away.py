"""expects: rejected update_mismatch world=2 — replaces all_reduce and its kin by functions that return at once.

Tries: torch.distributed's collectives, the process group's methods and their async forms do
    nothing; each rank divides its gradients as if they had been summed up twice, and opens its own
    weights as the replica.
Would save: all of the communication.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


class Done:
    def wait(self, *timeout):
        return True


def nothing(*tensors, **options):
    return Done()


for name in ("all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor", "broadcast", "barrier"):
    setattr(dist, name, nothing)


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
