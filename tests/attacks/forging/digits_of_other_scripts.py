"""expects: rejected outbox_invalid world=1 — its file's name is written with Arabic digits.

Tries: renames the file to a name whose digits match a pattern for any script and are no digits for
    others.
Would save: nothing; the judge would miss the file or fail.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def spoil(folder, boxes, **options):
    file = write(folder, boxes, **options)[0]
    arabic = file.name.translate({ord("0") + n: chr(0x660 + n) for n in range(10)})
    file.rename(file.with_name(arabic))


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
