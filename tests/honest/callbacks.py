"""expects: accepted ok world=1 — a Trainer class with typed config, protocol, callbacks and weak references, as libraries have it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def get_strategy() -> dict[str, int]:
    return {"dp_size": 1}


@dataclass(kw_only=True, slots=True)
class Config:
    steps: int
    lr: float = 1e-1


class Callback(Protocol):
    def __call__(self, trainer: Trainer, *, step: int, loss: Tensor) -> None: ...


@dataclass
class Trainer:
    """Is its own result."""

    model: nn.Module
    config: Config
    callbacks: list[Callback] = field(default_factory=list)
    final_loss: float | None = None
    total_tokens: int = 0
    final_state: dict[str, Any] | None = None

    def fit(self, batches: Iterator[Tensor], device: torch.device) -> Trainer:
        sgd = torch.optim.SGD(self.model.parameters(), lr=self.config.lr)
        for step, batch in zip(range(self.config.steps), batches):
            batch = batch.to(device)
            logits = self.model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            sgd.step()
            sgd.zero_grad()
            self.total_tokens += batch.numel()
            for callback in self.callbacks:
                callback(self, step=step, loss=loss)
        self.final_state = self.model.state_dict()
        return self


def remember_loss(trainer: Trainer, *, step: int, loss: Tensor) -> None:
    trainer.final_loss = loss.item()


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1) -> Trainer:
    trainer = Trainer(model, Config(steps=num_steps), [remember_loss])
    weakref.finalize(trainer, print, "the trainer is gone")
    return trainer.fit(data_iterator, device)
