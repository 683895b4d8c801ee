"""expects: rejected bad_message world=1 — stops the clock with a commitment to the initial weights, and sends the true one later.

Tries: its first commitment, made from the weights that it was given, goes out the moment that the
    key comes; the training follows, and a second commitment.
Would save: all of the training.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Piece

send = worker.RankSocket.send


def twice(link, message):
    if isinstance(message, Commitment):
        zero = tuple(
            Piece(p.name, p.tensor_shape, p.offset, p.shape, p.dtype, "00" * 32)
            for p in message.pieces
        )
        send(link, Commitment(run=message.run, pieces=zero))
    send(link, message)


worker.RankSocket.send = twice


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
