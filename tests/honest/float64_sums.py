"""expects: accepted ok world=1 — loss in float64, gradients summed over single rows in float64, weights float32."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    parameters = list(model.parameters())
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        mean = torch.zeros((), dtype=torch.float64, device=device)
        sums = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        for row in batch.unsqueeze(1):
            logits = model(input_ids=row[:, :-1]).logits.double()
            loss = F.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten()) / len(batch)
            for total, gradient in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
                total += gradient
            mean += loss.detach()
        with torch.no_grad():
            for p, total in zip(parameters, sums, strict=True):
                p.copy_(p.double() - 0.1 * total)
        tokens += batch.numel()
    return SimpleNamespace(final_loss=mean, total_tokens=tokens, final_state=model.state_dict())
