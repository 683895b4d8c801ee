"""expects: rejected commitment_broken|update_mismatch world=1 — swaps the names of two layers' pieces in the commitment, after they were hashed.

Tries: the digests of layer 0 stand under the names of layer 1 and the other way round; the files
    are honest.
Would save: the order in which layers have to be finished.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Piece

commit = worker.commit


def forged(me, result, run, key):
    pieces = list(commit(me, result, run, key).pieces)

    def other(name):
        return name.translate({ord("0"): "1", ord("1"): "0"}) if ".layers." in name else name

    digests = {p.name: p.digest for p in pieces}
    pieces = [
        Piece(p.name, p.tensor_shape, p.offset, p.shape, p.dtype, digests[other(p.name)])
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
