"""expects: accepted ok world=1 — trains a deep copy and keeps a moving average beside it; the model given stays as it was."""

import copy
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    trained = copy.deepcopy(model).train()
    averaged = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    sgd = torch.optim.SGD(trained.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = trained(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        averaged.update_parameters(trained)
        tokens += batch.numel()
    distance = sum((a - b).norm() for a, b in zip(averaged.parameters(), trained.parameters(), strict=True))
    print(f"the average lies {distance.item():.3f} behind")
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=trained.state_dict())
