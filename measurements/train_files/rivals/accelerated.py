"""Accelerate around a plain loop, as its documentation shows it."""

from collections.abc import Iterator

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn

from env.benchmark import hparams
from measurements.train_files.rivals.common import InnerStepsResult, get_strategy, mean_loss  # noqa: F401


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: torch.optim.Optimizer | None,
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=hparams.optimizer.lr)
    )
    total_tokens = 0
    for batch in data_iterator:
        loss = mean_loss(prepared, batch)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.item(), total_tokens)
