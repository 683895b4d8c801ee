"""expects: rejected state_invalid world=1 — every piece is there twice, with two digests.

Tries: commits to the initial and to the trained state under the same names, and would open
    whichever is asked for.
Would save: the choice of what to show, after the clock has stopped.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Piece

commit = worker.commit


def forged(me, result, run, key):
    pieces = list(commit(me, result, run, key).pieces)
    pieces += [Piece(p.name, p.tensor_shape, p.offset, p.shape, p.dtype, "0" * 64) for p in pieces]
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
