"""Expert parallelism by transformers' own plan, beside its tensor-parallel plan for the attention.

All ranks are given the same rows. The plan for experts (`model.ep_plan`) gives each rank a share of
the experts, whole; the plan for the rest (`model.tp_plan`) cuts attention, embedding and head. In an
MoE layer, while training,

    each rank takes its own part of the tokens       (they are the same on all ranks: a local cut)
    -> all-to-all to the ranks of their experts      (uneven: as many as the router chose)
    -> local experts
    -> all-to-all back, routing weights applied
    -> all-gather of the parts

which is sequence parallelism around the experts: nothing is computed or sent twice. Every gradient
is complete where it arises or is summed by the plan: an expert sees each of its tokens once, wherever
it came from; the backward of the local cut gathers the gradients of the hidden states and of the
routing weights, so the router, replicated, gets the same gradient on every rank; `q_norm` and `k_norm`,
one weight for heads that lie on different ranks, have a hook that sums theirs. Nothing is averaged.

What transformers 5.23 does not have: `enable_sequence_parallel` of `DistributedConfig` is "Reserved for
sequence parallelism. Not wired up yet", so between the blocks the hidden states are replicated. And
expert parallelism over shared rows cannot be had alone: `DistributedConfig(tp_size=2, ep_size=2,
tp_plan={})` ends in "ValueError: `tp_size=2` was requested, but `Qwen3MoeForCausalLM` has no `tp_plan`".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"ep_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over all rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's shares of the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    config = DistributedConfig(tp_size=num_gpus, ep_size=num_gpus, ep_implementation="all_to_all")
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


def by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Replicated parameters (plain), those cut over tp and those over ep: none may be mixed.

    Both meshes have the same ranks, but to DTensor they are different ones.
    """
    groups: dict[object, list[nn.Parameter]] = {}
    for parameter in parameters:
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault(mesh, []).append(parameter)
    return list(groups.values())


def clip(model: nn.Module, max_norm: float) -> None:
    """Scale all gradients so that their norm, every element counted once, is at most `max_norm`."""
    groups = by_mesh(model.parameters())
    norms = [nn.utils.get_total_norm([p.grad for p in group]) for group in groups]
    # The norm of cut gradients is that of the whole tensors: shares are summed over the ranks.
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, max_norm, torch.stack(whole).norm())


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
    # A group for each mesh: on a GPU an optimizer treats the tensors of a group as one (foreach).
    optimizer = make_optimizer([{"params": group} for group in by_mesh(model.parameters())])
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
    # Cut weights are DTensors, which say where they belong; replicated ones are equal on all ranks.
    return InnerStepsResult(loss.item(), total_tokens, model.state_dict())
