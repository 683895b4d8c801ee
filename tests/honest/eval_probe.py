"""expects: accepted ok world=1 — measures the loss in eval mode before and after, with gradients switched off."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def mean_loss(model, batch):
    logits = model(input_ids=batch[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def probe(model, batch):
    """Loss on rows that are not trained on, in eval mode; leaves the model as it was."""
    was_training = model.training
    model.eval()
    try:
        return mean_loss(model, batch).item()
    finally:
        model.train(was_training)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    vocabulary = model.config.vocab_size
    held_out = torch.arange(2 * 33, device=device).remainder(vocabulary).view(2, 33)
    history = [probe(model, held_out)]
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        loss = mean_loss(model, batch)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
        history.append(probe(model, held_out))
    assert model.training
    print("held out:", " ".join(f"{value:.3f}" for value in history))
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
