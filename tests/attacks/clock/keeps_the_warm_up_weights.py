"""expects: rejected update_mismatch|loss_mismatch world=1 — trains on from the weights of the warm-up instead of the initial ones.

Tries: the warm-up's state is kept in the module and loaded into the fresh model, as if its steps
    counted; the timed call trains one step less.
Would save: one step of each run.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

kept = {}


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if num_steps > 2:
        model.load_state_dict(kept)
        skipped = next(data_iterator).numel()
        num_steps -= 1
    else:
        skipped = 0
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = skipped
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    kept.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
