"""expects: accepted ok world=1 — the header has an odd length, so that all floats lie across words.

Tries: one more space shifts the data by a byte: views of unaligned memory as float32 are errors in
    some libraries and traps on some machines.
Would save: nothing; the judge would fail.
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
    text = json.dumps(header).encode()
    text += b" " * (1 + len(text) % 2)
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
