"""expects: accepted ok world=1 — sends the head of its commitment at once and the last byte a second later.

Tries: the length and most of the bytes reach the judge early, so that whoever stamps the first
    bytes of a message would stop the clock there; the rest follows after a second.
Would save: a second of every run, in which digests could still be computed.
"""

import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment

send = worker.RankSocket.send


def drip(link, message):
    if not isinstance(message, Commitment):
        send(link, message)
        return
    data = worker.sys.modules["harness.protocol.wire"].frame(message)
    link._socket.sendall(data[: len(data) // 2])
    time.sleep(0.5)
    link._socket.sendall(data[len(data) // 2 : -1])
    time.sleep(0.5)
    link._socket.sendall(data[-1:])


worker.RankSocket.send = drip


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
