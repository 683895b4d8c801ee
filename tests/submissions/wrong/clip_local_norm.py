"""expects: rejected update_mismatch world=1 profile=embedded-adamw — each shard is clipped by its own norm.

Two ranks hold half of the experts each, and rank 0 the rest (emulated in one process). Each clips what it
holds by the norm of what it holds, so every part may be as long as the whole should be.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from env.benchmark import hparams


def get_strategy():
    return {"dp_size": 1}


def clip_by_rank(model, max_norm):
    experts = [p.grad for name, p in model.named_parameters() if ".experts." in name]
    dense = [p.grad for name, p in model.named_parameters() if ".experts." not in name]
    for rank in range(2):
        own = [gradient.chunk(2)[rank] for gradient in experts] + (dense if rank == 0 else [])
        norm = torch.nn.utils.get_total_norm(own)
        for gradient in own:
            gradient *= min(1.0, max_norm / (norm.item() + 1e-6))


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    settings = hparams.optimizer
    adamw = torch.optim.AdamW(
        model.parameters(),
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
        clip_by_rank(model, settings.max_grad_norm)
        adamw.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
