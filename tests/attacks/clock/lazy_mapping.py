"""expects: accepted ok world=1 — final_state is a mapping that makes the last update when it is read.

Tries: inner_steps returns before its last backward pass; the mapping does it when the environment
    asks for its items, which is before DONE and so on the clock.
Would save: the last step, if the clock stopped when inner_steps returns.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import torch
import torch.nn.functional as F


class Lazy(Mapping):
    def __init__(self, model, finish):
        self.model, self.finish, self.state = model, finish, None

    def items(self):
        if self.state is None:
            for each in self.finish:
                each()
            self.state = self.model.state_dict()
        return self.state.items()

    def __getitem__(self, name):
        return dict(self.items())[name]

    def __iter__(self):
        return iter(dict(self.items()))

    def __len__(self):
        return len(dict(self.items()))


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        if step < num_steps - 1:
            loss.backward()
            sgd.step()
        tokens += batch.numel()
    lazy = Lazy(model, [loss.backward, sgd.step])
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=lazy)
