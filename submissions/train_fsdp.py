"""Fully sharded data parallelism (FSDP2): as data parallelism, but nobody holds the whole model.

Parameters, gradients and optimizer state are sharded over the ranks. A layer's parameters are gathered
just before the layer runs and dropped after it; its gradients are averaged straight into the shards.

With bfloat16 compute the shards that the optimizer updates remain float32: FSDP casts while it gathers,
which halves the traffic, and adds up the gradients in float32.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over this rank's rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's shards of the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    mesh = init_device_mesh(device.type, (num_gpus,))
    policy = MixedPrecisionPolicy(param_dtype=COMPUTE, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)  # one gather a layer
    # The root takes what is left: embedding, last norm, head. It also moves everything to `device`.
    return fully_shard(model, mesh=mesh, mp_policy=policy)


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
    # Made after sharding, so that it sees the sharded parameters (DTensors).
    optimizer = make_optimizer(model.parameters())
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows of this rank, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()  # FSDP averages the gradients over the ranks and keeps this rank's shards
        if hparams.optimizer.max_grad_norm is not None:
            # The norm of a sharded gradient is a DTensor too: the sum of squares runs over all ranks.
            nn.utils.clip_grad_norm_(model.parameters(), hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    # DTensors say which part of each tensor they are: no need to gather them on the clock.
    return InnerStepsResult(loss.item(), total_tokens, model.state_dict())
