"""expects: rejected update_mismatch world=1 profile=embedded-adamw — AdamW without weight decay.

torch's default is 0.01, and a bare Adam has none.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from env.benchmark import hparams


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    settings = hparams.optimizer
    adamw = torch.optim.AdamW(
        model.parameters(),
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=0.0,
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
