"""expects: accepted ok world=1 — holds half a gibibyte in socket buffers and pipes, and trains.

Tries: Unix sockets filled to the brim, pipes made as large as allowed and filled, loopback
    connections whose other end never reads.
Would save: nothing of the work; it would harm the machine's memory, where nobody counts the
    kernel's own.
Needs: a sandbox
"""

import fcntl
import os
import socket
from types import SimpleNamespace

import torch
import torch.nn.functional as F

held, taken = [], 0
while taken < 512 << 20 and len(held) < 3000:
    try:
        ends = socket.socketpair()
        ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
    except OSError:
        break
    held.append(ends)
    ends[0].setblocking(False)
    try:
        while True:
            taken += ends[0].send(bytes(1 << 17))
    except OSError:
        pass
for _ in range(500):
    try:
        pipe = os.pipe()
    except OSError:
        break
    held.append(pipe)
    try:
        fcntl.fcntl(pipe[1], 1031, 1 << 20)  # F_SETPIPE_SZ
    except OSError:
        pass
    os.set_blocking(pipe[1], False)
    try:
        while True:
            os.write(pipe[1], bytes(1 << 16))
    except OSError:
        pass


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
