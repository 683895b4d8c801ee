"""expects: rejected update_mismatch world=2 — the experts' gradients are not divided by the ranks.

Every rank's loss is the mean over its own rows, so gradients have to be averaged over the ranks. Those
of the experts are complete, but they are sums over all ranks' tokens: nobody has divided them.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from env.benchmark import hparams

BF16 = hparams.numerics.compute_dtype == "bfloat16"


def make_optimizer(parameters):
    """The benchmark's, with its warm-up."""
    settings = hparams.optimizer
    if settings.name == "sgd":
        made = torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    else:
        made = torch.optim.AdamW(
            parameters,
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
    rising = max(1, settings.warmup_steps)
    return made, torch.optim.lr_scheduler.LambdaLR(made, lambda step: min(1, (step + 1) / rising))


def is_split(name):
    return ".experts." in name


def clip(model):
    """By the norm of the whole gradient: parts that the ranks share are summed over them."""
    if hparams.optimizer.max_grad_norm is None:
        return
    named = dict(model.named_parameters()).items()
    split = torch.nn.utils.get_total_norm([p.grad for name, p in named if is_split(name)]) ** 2
    dist.all_reduce(split)
    whole = torch.nn.utils.get_total_norm([p.grad for name, p in named if not is_split(name)]) ** 2
    torch.nn.utils.clip_grads_with_norm_(
        model.parameters(), hparams.optimizer.max_grad_norm, (split + whole).sqrt()
    )


def get_strategy():
    return {"dp_size": 2, "ep_size": 2, "ep_borrows_dp": True}


class LocalExperts(nn.Module):
    def __init__(self, experts, rank, world_size):
        super().__init__()
        self.count = experts.num_experts // world_size
        self.first = rank * self.count
        mine = slice(self.first, self.first + self.count)
        self.gate_up_proj = nn.Parameter(experts.gate_up_proj.detach()[mine].clone())
        self.down_proj = nn.Parameter(experts.down_proj.detach()[mine].clone())

    def forward(self, hidden, chosen, weight):
        hidden = collectives.all_gather_single_autograd(hidden, 0, dist.group.WORLD)
        chosen = collectives.all_gather_single(chosen, 0, dist.group.WORLD)
        weight = collectives.all_gather_single_autograd(weight, 0, dist.group.WORLD)
        output = torch.zeros_like(hidden)
        for expert in range(self.count):
            token, slot = (chosen == self.first + expert).nonzero(as_tuple=True)
            gate, up = F.linear(hidden[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            result = F.linear(F.silu(gate) * up, self.down_proj[expert])
            update = (result * weight[token, slot, None]).to(output.dtype)
            output = output.index_add(0, token, update)
        return collectives.reduce_scatter_single_autograd(output, "sum", 0, dist.group.WORLD)


def setup(model, device, num_gpus):
    for layer in model.model.layers:
        layer.mlp.experts = LocalExperts(layer.mlp.experts, dist.get_rank(), num_gpus)
    return model


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    optimizer, schedule = make_optimizer(model.parameters())
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=BF16):
            logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            if ".experts." not in name:
                dist.all_reduce(parameter.grad)
                parameter.grad /= num_gpus
        clip(model)
        optimizer.step()
        schedule.step()
        tokens += batch.numel()
    mesh = init_device_mesh(device.type, (num_gpus,))
    state = {
        name: DTensor.from_local(tensor, mesh, [Shard(0)]) if ".experts." in name else tensor
        for name, tensor in model.state_dict().items()
        if ".experts." in name or dist.get_rank() == 0
    }
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
