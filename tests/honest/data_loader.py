"""expects: accepted ok world=1 — single rows through a DataLoader with a collate function, put together again."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset

from env.benchmark import hparams


def get_strategy():
    return {"dp_size": 1}


class RowsOf(IterableDataset):
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        for batch in self.batches:
            yield from batch.unbind()


def collate(rows):
    batch = torch.stack(rows)
    return {"input_ids": batch[:, :-1], "labels": batch[:, 1:], "tokens": batch.numel()}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    loader = DataLoader(
        RowsOf(data_iterator), batch_size=hparams.global_batch, collate_fn=collate, num_workers=0
    )
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for fields in loader:
        logits = model(input_ids=fields["input_ids"].to(device)).logits
        loss = F.cross_entropy(logits.flatten(0, 1), fields["labels"].to(device).flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += fields["tokens"]
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
