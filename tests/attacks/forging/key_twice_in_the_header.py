"""expects: rejected outbox_invalid world=1 — its header names lm_head twice, for two places of the file.

Tries: readers that keep the first of two equal keys hash one tensor, those that keep the last one
    compare the other.
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
    entry = json.dumps({"lm_head.weight": header["lm_head.weight"]})
    text = (entry[:-1] + ", " + json.dumps(header)[1:]).encode()
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
