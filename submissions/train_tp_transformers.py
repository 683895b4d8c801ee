"""Tensor parallelism by transformers' own plan: the model says itself how it is cut.

A model of transformers carries a plan (`model.tp_plan`): a style for every module that is cut. All
ranks are given the same rows, hold the same hidden states, and compute

    embedding   rows of the vocabulary, summed            experts  a slice of each one, summed
    attention   own heads, summed after o_proj            head     part of the vocabulary, gathered

Between the blocks everything is replicated, so norms and router do the same work on every rank, and
the plan takes care of every gradient: where a cut block begins, the gradients of its inputs (of the
routing weights too) are summed over the ranks; `q_norm` and `k_norm`, one weight for heads that lie on
different ranks, get a hook that sums theirs. There is nothing left to reduce here.

The usual way in is `from_pretrained(..., distributed_config=DistributedConfig(tp_size=2,
tp_plan="auto"))`, which reads from the disk only what a rank needs (and wants `accelerate`). The judge
hands over a model that is already loaded; `maybe_distribute_model`, which `from_pretrained` calls on the
empty model, cuts a loaded one just as well. `from_config(distributed_config=...)` is a TypeError.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from transformers.distributed import DistributedConfig

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"tp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over all rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's slices of the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    config = DistributedConfig(tp_size=num_gpus, tp_plan="auto")
    config, _, meshes = model.prepare_distribute_model(config)
    # What from_pretrained(distributed_config=...) calls before it reads the weights.
    return model.maybe_distribute_model(model, config, meshes).to(device)


def mean_loss(model: nn.Module, batch: Tensor, device: torch.device) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    # autocast does not know grouped_mm, by which transformers computes experts: they stay in the
    # float32 of their weights, which is right, though not as fast as it could be.
    with torch.autocast(device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def by_kind(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Cut parameters (DTensors) and replicated ones (plain): no operation may mix the two."""
    both = list(parameters)
    return [
        [p for p in both if isinstance(p, DTensor)],
        [p for p in both if not isinstance(p, DTensor)],
    ]


def clip(model: nn.Module, max_norm: float) -> None:
    """Scale all gradients so that their norm, every element counted once, is at most `max_norm`."""
    cut, replicated = by_kind(model.parameters())
    norms = torch.stack(
        [
            # of whole tensors: each rank's share is summed over the ranks
            nn.utils.get_total_norm([p.grad for p in cut]).full_tensor(),
            nn.utils.get_total_norm([p.grad for p in replicated]),
        ]
    )
    for parameters in (cut, replicated):
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norms.norm())


def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
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
    """Linear warm-up; steps count from 0."""
    settings = hparams.optimizer
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: object,  # None: every train file brings its own
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    # Two groups, because on a GPU an optimizer treats the tensors of a group as one (foreach).
    optimizer = make_optimizer([{"params": kind} for kind in by_kind(model.parameters())])
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows, sequence_length], equal on all ranks
        loss = mean_loss(model, batch, device)
        loss.backward()
        if hparams.optimizer.max_grad_norm is not None:
            clip(model, hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.item(), total_tokens, final_state(model))


def final_state(model: nn.Module) -> dict[str, Tensor]:
    """This rank's slices as DTensors, which say where they belong.

    The plan's "packed_colwise" gives a rank the same rows of gate as of up: two separate stretches of
    `gate_up_proj`. They go in under the names that checkpoints have for them, one matrix an expert.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith("experts.gate_up_proj"):
            state[name] = tensor
            continue
        experts = name.removesuffix(".gate_up_proj")
        gate, up = tensor.to_local().chunk(2, dim=1)
        for matrix, local in (("gate_proj", gate), ("up_proj", up)):
            for number, rows in enumerate(local):
                state[f"{experts}.{number}.{matrix}.weight"] = DTensor.from_local(
                    rows, tensor.device_mesh, [Shard(0)], run_check=False
                )
    return state
