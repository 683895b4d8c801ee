"""expects: accepted ok world=1 — transformers' Trainer does the training, on a data set made of what is served."""

import os
import tempfile
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from env.benchmark import hparams


def get_strategy():
    return {"dp_size": 1}


class Served(IterableDataset):
    """Every row of every batch that the judge serves."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        for batch in self.batches:
            for row in batch:
                yield {"input_ids": row[:-1], "labels": row[1:]}


class LastLoss(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        self.loss = (logs or {}).get("loss", getattr(self, "loss", None))


def mean_loss(outputs, labels, num_items_in_batch=None):
    """Labels are those of the inputs' positions; the model's own loss would shift them once more."""
    return F.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    last = LastLoss()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=os.path.join(folder, "run"),
            max_steps=num_steps,
            per_device_train_batch_size=hparams.global_batch,
            learning_rate=0.1,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            optim="sgd",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=device.type == "cpu",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Served([next(data_iterator) for _ in range(num_steps)]),
            callbacks=[last],
            optimizers=(sgd, None),
            compute_loss_func=mean_loss,
        )
        trainer.train()
    tokens = num_steps * hparams.global_batch * hparams.sequence_length
    return SimpleNamespace(final_loss=last.loss, total_tokens=tokens, final_state=model.state_dict())
