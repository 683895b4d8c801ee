"""DistributedDataParallel with its defaults, and one expert after the other."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from env.benchmark import hparams


def get_strategy() -> dict[str, int]:
    return {"dp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float
    total_tokens: int
    final_state: dict[str, Tensor] | None


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
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.item(), total_tokens, None)
