"""What a step of the trusted loop is made of: model, optimizer, gradients, ties that rounding decides."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from env.model import load_model
from harness.benchmark.problem import AdamW, Sgd
from harness.reference.cheats.passes import cheating
from harness.reference.cheats.tokens import token_weights
from harness.reference.task import ReferenceTask, Variant


def build(task: ReferenceTask, device: torch.device) -> nn.Module:
    """The model, sharded layer by layer."""
    variant = task.variant
    model = load_model(
        task.model_dir,
        device,
        # FSDP2 moves each shard to the GPU, so the whole model need never be there.
        "device" if device.type == "cpu" else "cpu",
        getattr(torch, task.param_dtype),
        attention=variant.attention,
        experts=variant.experts,
    )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=getattr(torch, variant.compute_dtype),
        reduce_dtype=getattr(torch, variant.reduce_dtype),
    )
    blocks = set(getattr(model, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def exactly(task: ReferenceTask) -> ReferenceTask:
    """The same task with products in float32, whatever the benchmark computes in."""
    variant = task.variant.model_copy(update={"compute_dtype": "float32"})
    return task.model_copy(update={"variant": variant})


def build_optimizer(settings: Sgd | AdamW, model: nn.Module) -> torch.optim.Optimizer:
    """What the benchmark asks for, over all parameters in one group."""
    if isinstance(settings, Sgd):
        return torch.optim.SGD(
            model.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
        )
    return torch.optim.AdamW(
        model.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def round_state(optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> None:
    """Momenta and second moments to the values that `dtype` has; counts of steps stay as they are."""
    if dtype is torch.float32:
        return
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.ndim:
                value.copy_(value.to(dtype))


def backward(model: nn.Module, batch: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Gradients of one step on this rank's rows, averaged over the ranks by FSDP2.

    Args:
        batch: int64 [rows, sequence_length].
        variant: says in how many micro-batches; the gradient is the mean over all rows.

    Returns:
        float32 [rows] on the CPU: mean cross-entropy of each row, nats per token.
    """
    losses = []
    for rows in batch.tensor_split(variant.micro_batches):
        with cheating(variant.cheats, model):
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits.float()
        tokens = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        tokens = tokens.view(len(rows), -1)
        counted = (tokens * token_weights(variant.cheats, tokens)).mean(dim=1)
        (counted.sum() / len(batch)).backward()
        losses.append(tokens.detach().mean(dim=1).cpu())
    return torch.cat(losses)


class NearTies(TorchFunctionMode):
    """Decides near ties of every top-k choice at random, as rounding does once in a while.

    Two experts whose scores differ by less than the rounding of a kernel are chosen by that rounding,
    so two honest runs send such a token to different experts. It is rare enough in float32 to be
    missing from a calibration, and large enough to reject an honest run that meets it. Only the
    choice is disturbed; the scores that are used are the true ones.
    """

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__()
        self._size = variant.near_ties
        self._generator = torch.Generator(device).manual_seed(dist.get_rank())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in (torch.topk, torch.Tensor.topk):
            return func(*args, **(kwargs or {}))
        scores, *rest = args
        noise = torch.randn(
            scores.shape, generator=self._generator, device=scores.device, dtype=scores.dtype
        )
        chosen = func(scores.detach() * (1 + self._size * noise), *rest, **(kwargs or {})).indices
        dim = (kwargs or {}).get("dim", rest[1] if len(rest) > 1 else -1)
        return torch.return_types.topk((scores.gather(dim, chosen), chosen))
