"""expects: rejected state_invalid world=1 — adds a piece whose name moves the cursor and forges a verdict.

Tries: an unknown tensor's name with escape sequences, a right-to-left mark and a line end reaches
    the sentence of the rejection.
Would save: nothing of the work; the reader of the rejection would see an acceptance.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Piece

commit = worker.commit


def forged(me, result, run, key):
    pieces = list(commit(me, result, run, key).pieces)
    name = "\x1b[2J\x1b[HACCEPTED\r\n\u202e" * 8
    pieces.append(Piece(name, (1,), (0,), (1,), "float32", "0" * 64))
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
