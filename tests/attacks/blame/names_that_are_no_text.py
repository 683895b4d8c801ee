"""expects: rejected outbox_invalid world=1 — leaves files with names that are no UTF-8 and hold line ends.

Tries: names of raw bytes, escape sequences and 255 characters, which the judge has to quote in its
    own sentence.
Would save: a free retry of every run that was slow.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def spoil(folder, boxes, **options):
    file = write(folder, boxes, **options)[0]
    for name in (b"\xff\xfe\x1b[2J\n\r", b"\xed\xa0\x80" * 80, b"-rf *"):
        with open(bytes(folder) + b"/" + name, "wb") as odd:
            odd.write(b"x")


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
