"""expects: rejected update_mismatch world=1 — the router learns from the first rank's tokens only.

Tokens are split over two ranks, emulated by two halves of the rows. All gradients of the dense part
have to be summed over the ranks, and the router's is forgotten.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from env.benchmark import hparams

BF16 = hparams.numerics.compute_dtype == "bfloat16"


def make_optimizer(parameters):
    """The benchmark's, with its warm-up."""
    settings = hparams.optimizer
    if settings.name == "sgd":
        made = torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    else:
        made = torch.optim.AdamW(
            parameters,
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
    rising = max(1, settings.warmup_steps)
    return made, torch.optim.lr_scheduler.LambdaLR(made, lambda step: min(1, (step + 1) / rising))


def clip(model):
    if hparams.optimizer.max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), hparams.optimizer.max_grad_norm)


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    optimizer, schedule = make_optimizer(model.parameters())
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        optimizer.zero_grad()
        total = 0.0
        for rank, own in enumerate(batch.chunk(2)):
            for layer in model.model.layers:
                layer.mlp.gate.weight.requires_grad_(rank == 0)
            with torch.autocast(device.type, torch.bfloat16, enabled=BF16):
                logits = model(input_ids=own[:, :-1]).logits
            loss = F.cross_entropy(logits.float().flatten(0, 1), own[:, 1:].flatten()) / 2
            loss.backward()
            total += loss.item()
        clip(model)
        optimizer.step()
        schedule.step()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=total, total_tokens=tokens, final_state=model.state_dict())
