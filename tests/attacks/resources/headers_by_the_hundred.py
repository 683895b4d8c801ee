"""expects: rejected outbox_invalid world=1 — opens its state beside thirty files of 65,536 tensors without elements.

Tries: files with the right names, well formed and small, each of which costs the judge seconds and tens
    of megabytes to read, as many as the outbox may hold.
Would save: nothing; the judge would run out of memory, and the evaluation be repeated for free.
"""

import json
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def spoil(folder, boxes, **options):
    write(folder, boxes, **options)
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({str(number): empty for number in range(65_536)}).encode()
    for number in range(30):
        file = folder / f"shard-00000-model-{number:05d}-of-00030.safetensors"
        file.write_bytes(len(text).to_bytes(8, "little") + text)


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
