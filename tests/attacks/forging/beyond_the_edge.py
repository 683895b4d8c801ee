"""expects: rejected state_invalid world=1 — a piece begins inside lm_head and ends far behind it, with sizes near 2**48.

Tries: offsets and sizes whose sums pass 2**48 and whose product passes 2**64, so that a check in
    machine integers wraps around to the right number of elements.
Would save: a state that covers itself by arithmetic.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Piece

commit = worker.commit


def forged(me, result, run, key):
    pieces = list(commit(me, result, run, key).pieces)
    index = next(i for i, p in enumerate(pieces) if p.name == "lm_head.weight")
    p = pieces[index]

    huge = 2**48 - 1
    pieces.append(Piece(p.name, p.tensor_shape, (huge, huge), (huge, huge), p.dtype, p.digest))
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
