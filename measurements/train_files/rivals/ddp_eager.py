"""DistributedDataParallel with its defaults, and one expert after the other."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from env.benchmark import hparams
from measurements.train_files.rivals.common import InnerStepsResult, get_strategy, mean_loss  # noqa: F401


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    model.set_experts_implementation("eager")  # type: ignore[operator]
    return DistributedDataParallel(model)


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: torch.optim.Optimizer | None,
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    optimizer = torch.optim.SGD(model.parameters(), lr=hparams.optimizer.lr)
    total_tokens = 0
    for batch in data_iterator:
        loss = mean_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.item(), total_tokens)
