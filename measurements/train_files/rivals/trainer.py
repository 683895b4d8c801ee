"""transformers' `Trainer`, as its documentation shows it, on this rank's rows."""

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from env.benchmark import hparams
from measurements.train_files.rivals.common import InnerStepsResult, get_strategy  # noqa: F401


class OwnRows(Trainer):
    """The rows are dealt already: no sampler deals them again."""

    rows: Iterator[Tensor]

    def get_train_dataloader(self) -> Any:
        return [{"input_ids": batch, "labels": batch} for batch in self.rows]


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: torch.optim.Optimizer | None,
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    rows = hparams.global_batch // num_gpus
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=rows,
            max_steps=num_steps,
            learning_rate=hparams.optimizer.lr,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.0,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = OwnRows(model=model, args=arguments)
        trainer.rows = data_iterator
        found = trainer.train()
    return InnerStepsResult(found.training_loss, num_steps * rows * hparams.sequence_length)
