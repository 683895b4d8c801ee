"""expects: accepted ok world=1 — cross-entropy of log_softmax and one-hot labels by einsum, its mean by a dot product."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def mean_loss(model, batch):
    log_p = model(input_ids=batch[:, :-1]).logits.log_softmax(dim=-1)
    wanted = F.one_hot(batch[:, 1:], log_p.shape[-1]).to(log_p.dtype)
    per_token = -torch.einsum("bsv,bsv->bs", log_p, wanted)
    weight = torch.full_like(per_token, 1 / per_token.numel())
    return per_token.ravel() @ weight.ravel()


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        loss = mean_loss(model, batch)
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
