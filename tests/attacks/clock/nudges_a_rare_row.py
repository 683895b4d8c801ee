"""expects: rejected update_mismatch world=1 — leaves out one row of the embedding, and moves it a little all the same.

Tries: does not train the row of a token that occurred once, and nudges it by a thousandth of the mean
    update, so that it moved; rows of rare tokens are judged together, and one of hundreds is no excess.
Would save: next to nothing for one row; gradients of all rare rows, if it could be done for each.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    rows = model.get_input_embeddings().weight
    initial = rows.detach().clone()
    occurred = torch.zeros(len(rows), dtype=torch.int64)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        occurred += torch.bincount(batch[:, :-1].flatten(), minlength=len(rows))
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    with torch.no_grad():
        once = int((occurred == 1).nonzero()[0])
        rows[once] = initial[once] + 0.001 * (rows - initial).mean(dim=0)
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
