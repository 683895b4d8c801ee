"""expects: rejected update_mismatch world=2 — only the gradients of the last micro-batch are averaged.

The hooks see each micro-batch's own gradient, not the accumulated one. (DDP's `no_sync` is right: it
reduces what has accumulated.)
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
    sync = False

    def average(gradient):
        if sync:
            dist.all_reduce(gradient)
            gradient /= num_gpus
        return gradient

    for parameter in model.parameters():
        parameter.register_hook(average)
    optimizer, schedule = make_optimizer(model.parameters())
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        optimizer.zero_grad()
        total = 0.0
        for index, micro in enumerate(batch.chunk(2)):
            sync = index == 1
            with torch.autocast(device.type, torch.bfloat16, enabled=BF16):
                logits = model(input_ids=micro[:, :-1]).logits
            loss = F.cross_entropy(logits.float().flatten(0, 1), micro[:, 1:].flatten()) / 2
            loss.backward()
            total += loss.item()
        clip(model)
        optimizer.step()
        schedule.step()
        tokens += batch.numel()
    state = model.state_dict() if dist.get_rank() == 0 else None
    return SimpleNamespace(final_loss=total, total_tokens=tokens, final_state=state)
