"""expects: rejected outbox_invalid world=1 — shapes are given as true, 1e0 and numbers with 5,000 digits.

Tries: numbers that JSON readers take for integers each in its own way, of which one has more digits
    than Python converts.
Would save: a header that two readers understand differently lets one check what the other does not
    use.
"""

import json
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def spoil(folder, boxes, **options):
    file = write(folder, boxes, **options)[0]
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header["model.norm.weight"]["shape"] = [128, True]
    text = json.dumps(header).replace("[2048, 128]", "[2048.0, 1" + "0" * 5000 + "]").encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


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
