"""expects: rejected update_mismatch world=1 — norm weights learn from the first half of the positions only.

Sequence parallelism splits the positions between two ranks (emulated in one process), so that each rank
has only its positions' part of the norms' gradients; they have to be summed.
"""

from functools import partial
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


def first_rank_learns(norm, hidden):
    own, other = hidden.chunk(2, dim=1)
    shape, eps = norm.weight.shape, norm.variance_epsilon
    parts = [
        F.rms_norm(own, shape, norm.weight, eps),
        F.rms_norm(other, shape, norm.weight.detach(), eps),
    ]
    return torch.cat(parts, dim=1)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.forward = partial(first_rank_learns, norm)
    optimizer, schedule = make_optimizer(model.parameters())
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=BF16):
            logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        clip(model)
        optimizer.step()
        schedule.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
