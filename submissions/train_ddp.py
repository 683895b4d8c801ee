"""Data parallelism: every rank holds the whole model, and gradients are averaged over the ranks.

Each rank gets its own rows of every global batch, the same number on each. So the average of the
ranks' gradients is the gradient of the mean loss over the global batch.

With bfloat16 compute the parameters, their gradients and so the averages remain float32: autocast casts
inside the forward pass only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over this rank's rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to the trained weights, on rank 0
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    return DistributedDataParallel(
        model.to(device),
        forward_sync_buffers=False,  # rotary frequencies: the same everywhere, and never trained
        gradient_as_bucket_view=True,  # saves a copy of all gradients
    )


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


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
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows of this rank, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()  # DDP averages the gradients while backward still runs
        if hparams.optimizer.max_grad_norm is not None:
            # The averaged gradients are the same on every rank, and so is their norm.
            nn.utils.clip_grad_norm_(model.parameters(), hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    # All ranks hold the same weights, so one full state dict is enough. Its names begin with DDP's
    # "module.", which the judge strips.
    state = None
    if dist.get_rank() == 0:
        state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return InnerStepsResult(loss.item(), total_tokens, state)
