"""expects: rejected outbox_invalid world=1 — writes the trained and an untrained state in two files.

Tries: two files of good names hold every piece twice, with different bytes, so that a reader that
    keeps the first or the last is shown another than the one that is hashed.
Would save: the choice of what is compared.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def spoil(folder, boxes, **options):
    file = write(folder, boxes, **options)[0]
    zeros = [box._replace(tensor=torch.zeros_like(box.tensor)) for box in boxes]
    write(folder, zeros, shard=2)


worker.write_opened = spoil


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
