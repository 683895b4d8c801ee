"""expects: accepted ok world=1 — logits of a quarter of the vocabulary at a time, their logsumexps added up by logaddexp."""

from types import SimpleNamespace

import torch


def get_strategy():
    return {"dp_size": 1}


def mean_loss(model, batch, chunks=4):
    hidden = model.model(input_ids=batch[:, :-1]).last_hidden_state.flatten(0, 1)
    labels = batch[:, 1:].flatten()
    log_total = hidden.new_full((len(hidden),), -torch.inf)
    for part in model.lm_head.weight.chunk(chunks):
        log_total = torch.logaddexp(log_total, (hidden @ part.t()).logsumexp(dim=1))
    picked = (hidden * model.lm_head.weight[labels]).sum(dim=1)
    return (log_total - picked).mean()


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
