"""expects: rejected update_mismatch world=1 profile=embedded-adamw — rows without a token are not decayed.

What a sparse or lazy Adam does to an embedding: a row without a gradient is passed over.
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
        weight_decay=settings.weight_decay,
    )
    table = model.get_input_embeddings().weight
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
        idle = ~table.grad.any(1)
        old = table.detach().clone()
        adamw.step()
        with torch.no_grad():
            table[idle] = old[idle]
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
