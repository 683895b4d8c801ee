"""expects: rejected state_invalid world=1 — two pieces overlap by as many elements as another place lacks.

Tries: the boxes of lm_head add up to exactly its number of elements: rows 0 to 1024 twice over in
    part, and a hole of the same size.
Would save: the training of the rows in the hole.
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

    for offset, rows in ((0, 1024), (512, 1024)):
        pieces.append(Piece(p.name, p.tensor_shape, (offset, 0), (rows, 128), p.dtype, p.digest))
    del pieces[index]
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
