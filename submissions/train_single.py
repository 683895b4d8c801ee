"""One process, one device: the plainest train file there is. Start here.

The judge calls `setup` (off the clock), hands over unseen data, and times `inner_steps`. Parameters,
gradients and optimizer state are float32; where the benchmark asks for bfloat16, autocast runs the
matrix products in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 1}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step
    total_tokens: int  # tokens of all batches, `batch.numel()` each
    final_state: dict[str, Tensor] | None  # names to the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Wrap, shard or compile the model here; called again for every run, on a fresh model."""
    return model.to(device)


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    # Autocast does not know grouped_mm, with which transformers computes the experts: those stay in
    # float32. That is right but slow; FSDP's policy (train_fsdp.py) casts their weights as well.
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
        batch = next(data_iterator).to(device)  # int64 [rows, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()
        if hparams.optimizer.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return InnerStepsResult(loss.item(), total_tokens, state)
