"""expects: rejected bad_message|commitment_broken world=1 — sends DONE and a commitment in one write, without waiting for the key.

Tries: both messages leave in a single write, so that the clock stops with DONE; its digests are
    made with the warm-up's key.
Would save: the seconds of the digest and the exchange of the key.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Done

send = worker.RankSocket.send
frame = worker.sys.modules["harness.protocol.wire"].frame


def read_and_commit(returned, shapes):
    result = read(returned, shapes)
    ready.append(result)
    return result


def both(link, message):
    if isinstance(message, Done):
        commitment = worker.commit(SimpleNamespace(task=None), ready[-1], message.run, bytes(32))
        link._socket.sendall(frame(message) + frame(commitment))
    elif not isinstance(message, Commitment):
        send(link, message)


ready = []
read = worker.read_result
worker.read_result = read_and_commit
worker.RankSocket.send = both


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
