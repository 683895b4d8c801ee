"""expects: rejected update_mismatch world=2 — gradients are never synchronised.

Every rank trains a model of its own on its own rows; rank 0's is handed in.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
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
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
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
    state = model.state_dict() if dist.get_rank() == 0 else None
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
