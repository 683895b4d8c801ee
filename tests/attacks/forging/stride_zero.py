"""expects: rejected update_mismatch world=1 — the rows of the embedding are one trained row with stride 0.

Tries: an expanded tensor has the right shape, dtype and number of elements and holds 128 numbers in
    memory.
Would save: the hashing and most of the update of the largest tensors.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


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
    state = model.state_dict()
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        state[name] = state[name][:1].expand(2048, 128)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
