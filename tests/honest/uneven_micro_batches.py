"""expects: accepted ok world=1 — micro-batches of 3, 3 and 2 rows, each weighted by its share of the tokens."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

ROWS = 3  # does not divide the rows of a batch


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        mean = torch.zeros((), device=device)
        for rows in batch.split(ROWS):
            logits = model(input_ids=rows[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            share = loss * (len(rows) / len(batch))
            share.backward()
            mean += share.detach()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=mean.item(), total_tokens=tokens, final_state=model.state_dict())
