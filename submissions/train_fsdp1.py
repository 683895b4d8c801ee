"""Fully sharded data parallelism by the older FSDP1, in the older form of the contract.

As in `train_fsdp.py`, parameters, gradients and optimizer state are sharded over the ranks, each with
its own rows. But FSDP1 flattens all parameters of a layer into one vector and cuts that, so a shard is
no part of any one tensor that could be named. The whole model is gathered on rank 0 at the end, and
that is on the clock: new code should use FSDP2.

The gradients are averaged over the ranks by FSDP1, in float32.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FullStateDictConfig,
    FullyShardedDataParallel,
    MixedPrecision,
    StateDictType,
)
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32


def get_strategy() -> str:
    """The older form: one word for all ranks. The same as {"dp_size": <number of ranks>}."""
    return "fsdp"


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over this rank's rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to the trained weights, on rank 0
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=ModuleWrapPolicy({type(model.model.layers[0])}),  # one gather a layer
        mixed_precision=MixedPrecision(param_dtype=COMPUTE, reduce_dtype=torch.float32),
        device_id=device,  # FSDP1 must be told, even that it is the CPU
        use_orig_params=True,  # the optimizer sees parameters, not flat vectors
    )


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


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
    # Made after sharding, so that it sees this rank's parts of the parameters.
    optimizer = make_optimizer(model.parameters())
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows of this rank, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()  # FSDP averages the gradients over the ranks and keeps this rank's shards
        if hparams.optimizer.max_grad_norm is not None:
            # FSDP1's own: torch.nn.utils.clip_grad_norm_ would see this rank's shards only.
            model.clip_grad_norm_(hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.item(), total_tokens, full_state(model, device))


def full_state(model: nn.Module, device: torch.device) -> dict[str, Tensor] | None:
    """The whole model on rank 0, None elsewhere. All ranks must call it."""
    # offload_to_cpu=True crashes the process where the shards are on the CPU already (torch 2.13).
    config = FullStateDictConfig(offload_to_cpu=device.type != "cpu", rank0_only=True)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT, config):
        state = model.state_dict()
    return state if dist.get_rank() == 0 else None
