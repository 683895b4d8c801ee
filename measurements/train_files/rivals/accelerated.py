"""Accelerate around a plain loop, as its documentation shows it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn

from env.benchmark import hparams


def get_strategy() -> dict[str, int]:
    return {"dp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float
    total_tokens: int
    final_state: dict[str, Tensor] | None


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
        logits = prepared(input_ids=batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.item(), total_tokens, None)
