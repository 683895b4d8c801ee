"""Expert parallelism: every rank holds some of the experts, and tokens travel to them.

All ranks are given the same rows. Each takes its share of them through the dense part of the model
(embedding, attention, router, head), which every rank holds in full. In an MoE layer

    forward:  gather the tokens of all ranks -> local experts -> sum over the ranks, keep own tokens
    backward: gather the gradients           -> local experts -> sum over the ranks, keep own tokens

so a rank's experts see every token that chose them, wherever it came from. Three rules make the result
equal to that of one process:

1. The loss is divided by the number of tokens of the *whole* batch.
2. Gradients of the dense part are summed over the ranks: each has seen only its own rows.
3. Gradients of the experts are left alone: they are complete. Nothing is averaged anywhere.

Rule 2 holds for the router too: the gradient of a routing weight arises where the expert is and must
travel back to where the token came from, just as that of the hidden state does.

Clipping needs the norm over all parameters, each counted once: the dense gradients are the same on every
rank, those of the experts are not, so only the experts' squares are summed over the ranks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"ep_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over all rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to the trained weights; the experts are sharded
    final_logits: Tensor | None = None  # optional, never compared


def all_gather(own: Tensor) -> Tensor:
    """[n, ...] on each rank -> [world * n, ...], in rank order."""
    whole = own.new_empty(dist.get_world_size() * len(own), *own.shape[1:])
    dist.all_gather_single(whole, own.contiguous())
    return whole


def reduce_scatter(whole: Tensor) -> Tensor:
    """[world * n, ...] on each rank -> [n, ...]: this rank's part of the sum over all ranks."""
    own = whole.new_empty(len(whole) // dist.get_world_size(), *whole.shape[1:])
    dist.reduce_scatter_single(own, whole.contiguous())
    return own


class GatherTokens(torch.autograd.Function):
    """All ranks' tokens. Every rank uses them, so their gradients are summed on the way back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return all_gather(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return reduce_scatter(gradient)


class SumOwnTokens(torch.autograd.Function):
    """This rank's tokens of the sum over all ranks: the exact opposite of `GatherTokens`."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor) -> Tensor:
        return reduce_scatter(whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_gather(gradient)


class LocalExperts(nn.Module):
    """This rank's slice of a layer's experts. Takes the place of transformers' `mlp.experts`."""

    def __init__(self, experts: nn.Module, rank: int, world_size: int) -> None:
        super().__init__()
        self.total = len(experts.gate_up_proj)
        self.count = self.total // world_size
        self.first = rank * self.count
        # clone(): a view would keep the other ranks' experts in memory.
        mine = slice(self.first, self.first + self.count)
        self.gate_up_proj = nn.Parameter(experts.gate_up_proj.detach()[mine].clone())
        self.down_proj = nn.Parameter(experts.down_proj.detach()[mine].clone())

    def forward(self, hidden: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        """hidden [tokens, H]; chosen experts (int64) and their weights, both [tokens, top_k]."""
        # Hidden states and routing weights travel in one message: both need the same backward.
        weight = weight.to(hidden.dtype)  # autocast leaves one float32 and the other bfloat16
        routing = hidden.new_zeros(len(hidden), self.total).scatter(1, chosen, weight)
        packed = GatherTokens.apply(torch.cat([hidden, routing], dim=1).to(COMPUTE))
        hidden, routing = packed.split([hidden.shape[1], self.total], dim=1)
        routing = routing.narrow(1, self.first, self.count)

        # What this rank has to do, sorted by expert for the grouped products. It may be nothing:
        # then the sums below are zero but still part of the graph, so the backward's collectives
        # find their counterparts.
        expert, token = routing.T.nonzero(as_tuple=True)
        ends = expert.bincount(minlength=self.count).cumsum(0).int()

        # Autocast does not know grouped_mm: the weights are cast by hand, their gradients come back
        # as float32.
        gate_up_proj = self.gate_up_proj.to(COMPUTE).transpose(1, 2)
        down_proj = self.down_proj.to(COMPUTE).transpose(1, 2)
        gate_up = F.grouped_mm(hidden.index_select(0, token), gate_up_proj, offs=ends)
        gate, up = gate_up.chunk(2, dim=-1)
        output = F.grouped_mm(F.silu(gate) * up, down_proj, offs=ends)
        output = output * routing[token, expert].unsqueeze(1)
        return SumOwnTokens.apply(torch.zeros_like(hidden).index_add(0, token, output))


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    for layer in model.model.layers:
        layer.mlp.experts = LocalExperts(layer.mlp.experts, dist.get_rank(), num_gpus)
    return model.to(device)


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def sum_over_ranks(gradients: list[Tensor]) -> None:
    """In place, as one message: many small ones would each cost a round trip."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def clip(dense: list[nn.Parameter], experts: list[nn.Parameter], max_norm: float) -> None:
    """By the norm of all gradients of all ranks, as one process would have it."""
    squares = nn.utils.get_total_norm([p.grad for p in experts]).square()
    dist.all_reduce(squares)
    norm = (squares + nn.utils.get_total_norm([p.grad for p in dense]).square()).sqrt()
    nn.utils.clip_grads_with_norm_(dense + experts, max_norm, norm)


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
    optimizer = make_optimizer(model.parameters())
    dense = [p for name, p in model.named_parameters() if ".mlp.experts." not in name]
    experts = [p for name, p in model.named_parameters() if ".mlp.experts." in name]
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows, sequence_length], equal on all ranks
        own = batch.chunk(num_gpus)[dist.get_rank()]
        loss = mean_loss(model, own) / num_gpus  # rule 1: shares of equal size
        loss.backward()
        sum_over_ranks([p.grad for p in dense])  # rule 2; and rule 3 is what is not here
        if hparams.optimizer.max_grad_norm is not None:
            clip(dense, experts, hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    dist.all_reduce(loss.detach_())
    return InnerStepsResult(loss.item(), total_tokens, sharded_state(model, device, num_gpus))


def sharded_state(model: nn.Module, device: torch.device, num_gpus: int) -> dict[str, Tensor]:
    """Every rank's experts as DTensors, which say where they belong; the rest from rank 0 alone."""
    mesh = init_device_mesh(device.type, (num_gpus,))
    state = {}
    for name, tensor in model.state_dict().items():
        if ".mlp.experts." in name:
            state[name] = DTensor.from_local(tensor, mesh, [Shard(0)], run_check=False)
        elif dist.get_rank() == 0:
            state[name] = tensor
    return state
