"""expects: rejected update_mismatch world=1 profile=embedded-adamw — AdamW without weight decay for the norms.

A widespread habit, and not what this benchmark asks for.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from env.benchmark import hparams


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    settings = hparams.optimizer
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        groups,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    tokens = 0
    for step in range(num_steps):
        for group in adamw.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        adamw.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
