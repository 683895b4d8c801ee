"""expects: rejected bad_message world=1 — its peak memory is negative.

Tries: OPENED claims -1 bytes, for a table that is sorted by memory.
Would save: a place in a ranking by memory.
"""

import struct
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Opened

send = worker.RankSocket.send


def forged(link, message):
    if isinstance(message, Opened):
        body = b'{"type":"opened","run":0,"peak_memory_bytes":-1}'
        link._socket.sendall(struct.pack(">I", len(body)) + body)
    else:
        send(link, message)


worker.RankSocket.send = forged


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
