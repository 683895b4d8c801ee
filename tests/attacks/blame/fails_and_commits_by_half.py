"""expects: rejected result_invalid|bad_message world=1 — reports an exception, begins its commitment, and hangs up.

Tries: a whole report of a failure, the head of a frame of 100,000 bytes behind it, and the end of the
    connection while the judge looks for the first cause: it would let go of the same socket twice.
Would save: a free retry of every run that was slow.
"""

import socket
import struct
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Failed, Stage

send = worker.RankSocket.send


def half(link, message):
    if not isinstance(message, Commitment):
        return send(link, message)
    send(link, Failed(stage=Stage.RESULT, message="it was slow"))
    link._socket.sendall(struct.pack(">I", 100_000))
    time.sleep(0.3)
    link._socket.shutdown(socket.SHUT_RDWR)
    time.sleep(60)


worker.RankSocket.send = half


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
