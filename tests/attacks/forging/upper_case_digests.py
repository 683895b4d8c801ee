"""expects: rejected bad_message world=1 — writes its digests in capital letters.

Tries: the same 256 bits in another spelling: where one reader compares text and another one
    numbers, equal is not equal.
Would save: two spellings of one content pass for two versions.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Piece

commit = worker.commit


def forged(me, result, run, key):
    pieces = list(commit(me, result, run, key).pieces)
    pieces = [
        Piece(p.name, p.tensor_shape, p.offset, p.shape, p.dtype, "AB" + p.digest[2:].upper())
        for p in pieces
    ]
    return Commitment(run=run, pieces=tuple(pieces))


worker.commit = forged


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
