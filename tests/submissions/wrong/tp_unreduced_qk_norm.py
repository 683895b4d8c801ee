"""expects: rejected update_mismatch world=2 — gradients of q_norm and k_norm are not summed over the ranks.

Heads are split over the ranks. The weights of q_norm and k_norm serve all heads, so each rank has only
its own heads' part of their gradients.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

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


def is_split(name):
    return name.split(".")[-2] in ("q_proj", "k_proj", "v_proj", "o_proj")


def clip(model):
    """By the norm of the whole gradient: parts that the ranks share are summed over them."""
    if hparams.optimizer.max_grad_norm is None:
        return
    named = dict(model.named_parameters()).items()
    split = torch.nn.utils.get_total_norm([p.grad for name, p in named if is_split(name)]) ** 2
    dist.all_reduce(split)
    whole = torch.nn.utils.get_total_norm([p.grad for name, p in named if not is_split(name)]) ** 2
    torch.nn.utils.clip_grads_with_norm_(
        model.parameters(), hparams.optimizer.max_grad_norm, (split + whole).sqrt()
    )


def get_strategy():
    return {"tp_size": 2}


class Enter(torch.autograd.Function):
    """Into the split part: every rank uses the same input, so gradients are summed."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient


class Leave(torch.autograd.Function):
    """Out of the split part: the sum of the ranks' outputs."""

    @staticmethod
    def forward(ctx, tensor):
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def enter(module, inputs, keywords):
    return inputs, keywords | {"hidden_states": Enter.apply(keywords["hidden_states"])}


def leave(module, inputs, output):
    return Leave.apply(output[0]), *output[1:]


def setup(model, device, num_gpus):
    for layer in model.model.layers:
        attention = layer.self_attn
        for name, dim in {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}.items():
            linear = getattr(attention, name)
            own = linear.weight.detach().chunk(num_gpus, dim)[dist.get_rank()]
            linear.weight = nn.Parameter(own.clone())
        attention.register_forward_pre_hook(enter, with_kwargs=True)
        attention.register_forward_hook(leave)
    return model


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
    mesh = init_device_mesh(device.type, (num_gpus,))
    state = {}
    for name, tensor in model.state_dict().items():
        dim = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}.get(name.split(".")[-2])
        if dim is not None:
            state[name] = DTensor.from_local(tensor, mesh, [Shard(dim)])
        elif dist.get_rank() == 0:
            state[name] = tensor
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
