"""expects: accepted ok world=1 — claims to have trained on fewer tokens than none.

Tries: a token count of -2**63, whose absolute value does not fit and whose product with FLOPs
    changes sign.
Would save: an MFU that is made of the submission's own count.
"""

import json
import struct
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Done

send = worker.RankSocket.send


def forged(link, message):
    if isinstance(message, Done):
        loss = json.dumps(message.final_loss)
        body = b'{"type":"done","run":%d,"final_loss":%b,"total_tokens":-9223372036854775808}' % (
            message.run, loss.encode()
        )
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
