"""Data parallelism outside, expert parallelism inside: 4 ranks as 2 groups of 2.

              ep 0                        ep 1
    dp 0   rank 0: experts 0 to 3     rank 1: experts 4 to 7      rows 0 to 3
    dp 1   rank 2: experts 0 to 3     rank 3: experts 4 to 7      rows 4 to 7

A row of this grid is a group of `ep`: its ranks are given the same rows of the batch, hold all experts
together, and exchange tokens with one another only. A column is a group of `dp`: its ranks hold the
same experts. The dense part (embedding, attention, router, head) is whole on all four.

Within its group each rank takes half of the rows, so every rank runs the dense part on a quarter of
the global batch. In an MoE layer, within an ep group,

    forward:  gather the tokens of both ranks -> local experts -> sum over ep, keep own tokens
    backward: gather the gradients            -> local experts -> sum over ep, keep own tokens

The loss is divided by the number of tokens of the *global* batch. Then every gradient is a sum, and
nothing is averaged anywhere:

1. Dense gradients are summed over all four ranks: each has seen a quarter of the rows.
2. An expert's gradient is complete for its group's rows, and is summed over `dp` only.
3. In the gradient norm the dense part counts once, each expert once: squares are added over `ep`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32
EP_SIZE = 2


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 2, "ep_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over all rows of the global batch
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to the trained weights; the experts are sharded
    final_logits: Tensor | None = None  # optional, never compared


def all_gather(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[n, ...] on each rank -> [ranks * n, ...], in rank order."""
    whole = own.new_empty(group.size() * len(own), *own.shape[1:])
    dist.all_gather_single(whole, own.contiguous(), group=group)
    return whole


def reduce_scatter(whole: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[ranks * n, ...] on each rank -> [n, ...]: this rank's part of the sum over the group."""
    own = whole.new_empty(len(whole) // group.size(), *whole.shape[1:])
    dist.reduce_scatter_single(own, whole.contiguous(), group=group)
    return own


class GatherTokens(torch.autograd.Function):
    """The group's tokens. Every rank uses them, so their gradients are summed on the way back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return all_gather(own, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return reduce_scatter(gradient, ctx.group), None


class SumOwnTokens(torch.autograd.Function):
    """This rank's tokens of the sum over the group: the exact opposite of `GatherTokens`."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return reduce_scatter(whole, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return all_gather(gradient, ctx.group), None


class LocalExperts(nn.Module):
    """This rank's slice of a layer's experts. Takes the place of transformers' `mlp.experts`."""

    def __init__(self, experts: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__()
        self.group = mesh["ep"].get_group()
        self.total = len(experts.gate_up_proj)
        self.count = self.total // self.group.size()
        self.first = self.group.rank() * self.count
        # clone(): a view would keep the other ranks' experts in memory.
        mine = slice(self.first, self.first + self.count)
        self.gate_up_proj = nn.Parameter(experts.gate_up_proj.detach()[mine].clone())
        self.down_proj = nn.Parameter(experts.down_proj.detach()[mine].clone())

    def forward(self, hidden: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        """hidden [tokens, H]; chosen experts (int64) and their weights, both [tokens, top_k]."""
        # Hidden states and routing weights travel in one message: both need the same backward.
        routing = weight.new_zeros(len(hidden), self.total).scatter(1, chosen, weight)
        packed = torch.cat([hidden.to(COMPUTE), routing.to(COMPUTE)], dim=1)
        packed = GatherTokens.apply(packed, self.group)
        hidden, routing = packed.split([hidden.shape[1], self.total], dim=1)
        routing = routing.narrow(1, self.first, self.count)

        # What this rank has to do, sorted by expert for the grouped products. It may be nothing:
        # then the sums below are zero but still part of the graph, so the backward's collectives
        # find their counterparts.
        expert, token = routing.T.nonzero(as_tuple=True)
        ends = expert.bincount(minlength=self.count).cumsum(0).int()

        # Autocast knows nothing of grouped products: the casts are ours.
        gate_up_proj = self.gate_up_proj.to(COMPUTE).transpose(1, 2)
        down_proj = self.down_proj.to(COMPUTE).transpose(1, 2)
        rows = hidden.index_select(0, token)
        gate, up = F.grouped_mm(rows, gate_up_proj, offs=ends).chunk(2, dim=-1)
        output = F.grouped_mm(F.silu(gate) * up, down_proj, offs=ends)
        output = output * routing[token, expert].unsqueeze(1)
        whole = torch.zeros_like(hidden).index_add(0, token, output)
        return SumOwnTokens.apply(whole, self.group)


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    # Row-major, dp outermost: the layout in which the judge deals the rows.
    shape = (num_gpus // EP_SIZE, EP_SIZE)
    model.mesh = init_device_mesh(device.type, shape, mesh_dim_names=("dp", "ep"))
    for layer in model.model.layers:
        layer.mlp.experts = LocalExperts(layer.mlp.experts, model.mesh)
    return model.to(device)


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def sum_over(parameters: list[nn.Parameter], group: dist.ProcessGroup) -> None:
    """Sum gradients in place, as one message: many small ones would each cost a round trip."""
    gradients = [parameter.grad for parameter in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, group=group)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def clip(
    dense: list[nn.Parameter], experts: list[nn.Parameter], max_norm: float, ep: dist.ProcessGroup
) -> None:
    """Scale all gradients so that their norm over the whole model is at most `max_norm` (rule 3)."""
    squared = nn.utils.get_total_norm([p.grad for p in experts]).square()
    dist.all_reduce(squared, group=ep)
    squared += nn.utils.get_total_norm([p.grad for p in dense]).square()
    nn.utils.clip_grads_with_norm_([*dense, *experts], max_norm, squared.sqrt())


def make_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The benchmark's: SGD or AdamW."""
    settings = hparams.optimizer
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def learning_rate(step: int) -> float:
    """Linear warm-up; `step` counts from 0."""
    settings = hparams.optimizer
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: torch.optim.Optimizer | None,  # None: every train file brings its own
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    dp, ep = (model.mesh[axis].get_group() for axis in ("dp", "ep"))
    optimizer = make_optimizer(model.parameters())
    experts = [p for name, p in model.named_parameters() if ".mlp.experts." in name]
    dense = [p for name, p in model.named_parameters() if ".mlp.experts." not in name]
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows of this dp group, sequence_length]
        own = batch.chunk(EP_SIZE)[ep.rank()]
        loss = mean_loss(model, own) / num_gpus  # all ranks have equally many rows
        loss.backward()
        sum_over(dense, dist.group.WORLD)  # rule 1
        sum_over(experts, dp)  # rule 2
        if hparams.optimizer.max_grad_norm is not None:
            clip(dense, experts, hparams.optimizer.max_grad_norm, ep)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    dist.all_reduce(loss.detach_())
    return InnerStepsResult(loss.item(), total_tokens, sharded_state(model))


def sharded_state(model: nn.Module) -> dict[str, Tensor]:
    """The experts as DTensors, which say where they belong; the rest from rank 0 alone."""
    placements = [Replicate(), Shard(0)]  # over dp, over ep
    state = {}
    for name, tensor in model.state_dict().items():
        if ".mlp.experts." in name:
            state[name] = DTensor.from_local(tensor, model.mesh, placements, run_check=False)
        elif dist.get_rank() == 0:
            state[name] = tensor
    return state
