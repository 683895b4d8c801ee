"""expects: accepted ok world=1 — the result has __slots__ and properties: an attached 0-d loss, a count as tensor."""

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


class Run:
    """A training run that is its own result."""

    __slots__ = ("_loss", "_model", "_tokens")

    def __init__(self, model, device):
        self._model = model
        self._loss = None
        self._tokens = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def final_loss(self):
        return self._loss  # still part of a graph

    @property
    def total_tokens(self):
        return self._tokens

    @property
    def final_state(self):
        return dict(self._model.named_parameters())  # nn.Parameters that require gradients

    def step(self, batch, sgd):
        logits = self._model(input_ids=batch[:, :-1]).logits
        self._loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        self._loss.backward()
        sgd.step()
        sgd.zero_grad()
        self._tokens += batch.numel()


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    run = Run(model, device)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(num_steps):
        run.step(next(data_iterator).to(device), sgd)
    return run
