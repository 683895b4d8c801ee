"""expects: accepted ok world=2 — ZeRO by hand: gradients reduced into shares, shares updated, weights gathered."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 2}


class Shares:
    """All parameters in one flat tensor, of which this rank updates one part."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.world, self.rank = dist.get_world_size(), dist.get_rank()
        self.count = sum(p.numel() for p in self.parameters)
        padded = -(-self.count // self.world) * self.world
        self.flat = self.parameters[0].new_zeros(padded)
        offset = 0
        for p in self.parameters:
            part = self.flat[offset : offset + p.numel()]
            part.copy_(p.detach().flatten())
            p.data = part.view_as(p)
            offset += p.numel()

    @torch.no_grad()
    def step(self, lr):
        gradient = torch.zeros_like(self.flat)
        torch.cat([p.grad.flatten() for p in self.parameters], out=gradient[: self.count])
        mine = self.flat.chunk(self.world)[self.rank].clone()
        share = torch.empty_like(mine)
        dist.reduce_scatter_tensor(share, gradient)
        mine.sub_(share, alpha=lr / self.world)
        dist.all_gather_into_tensor(self.flat, mine)
        for p in self.parameters:
            p.grad = None


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    shares = Shares(model.parameters())
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        shares.step(lr=0.1)
        tokens += batch.numel()
    state = model.state_dict() if shares.rank == 0 else None
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
