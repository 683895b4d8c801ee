"""Graded cheats, put into the trusted loop: `validator power` measures which of them the comparison sees.

Each leaves out a part of the work, from nothing to all of it, in the way in which it is hardest to see:
what is left is scaled so that the gradient stays about as long as it was. No evaluation uses any of this.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn

from harness.records import Record

Family = Literal[
    "random_tokens",
    "lowest_loss_tokens",
    "last_positions",
    "rows",
    "top_1",
    "expert_gradients",
    "layer_gradients",
    "backward_bf16",
    "backward_fp8",
    "learning_rate",
    "products_bf16",
    "reductions_bf16",
    "state_bf16",
]
FAMILIES: tuple[Family, ...] = get_args(Family)
#: What is less exact by a setting of the loop itself.
LESS_EXACT: dict[Family, dict[str, str]] = {
    "products_bf16": {"compute_dtype": "bfloat16"},
    "reductions_bf16": {"reduce_dtype": "bfloat16"},
    "state_bf16": {"state_dtype": "bfloat16"},
}
#: Of what these leave out the loss is still computed, but not its gradient.
TOKEN_FAMILIES = ("random_tokens", "lowest_loss_tokens", "last_positions", "rows")


class Cheat(Record):
    """Attributes:
    strength: the part that is left out, 0 to 1; 1 where the family has no grades.
    """

    family: Family
    strength: float


def token_weights(cheat: Cheat | None, losses: torch.Tensor) -> torch.Tensor | float:
    """What each token's loss counts in the gradient, 1 on average.

    Args:
        losses: float32 [rows, T], of a micro-batch.
    """
    if cheat is None or cheat.family not in TOKEN_FAMILIES:
        return 1.0
    rows, positions = losses.shape
    kept = torch.ones_like(losses)
    if cheat.family == "random_tokens":
        kept[torch.rand_like(losses) < cheat.strength] = 0
    elif cheat.family == "lowest_loss_tokens":
        kept[losses.detach() <= torch.quantile(losses.detach(), cheat.strength)] = 0
    elif cheat.family == "last_positions":
        kept[:, positions - round(cheat.strength * positions) :] = 0
    else:
        kept[rows - round(cheat.strength * rows) :] = 0
    return kept / kept.mean()


@contextmanager
def cheating(cheat: Cheat | None, model: nn.Module) -> Iterator[None]:
    """While this is open, the model's passes leave out what the cheat says."""
    with ExitStack() as stack:
        if cheat is not None and cheat.family in _HOOKS:
            kinds, hook = _HOOKS[cheat.family]
            for name, module in model.named_modules():
                if type(module).__name__.endswith(kinds) or name.endswith(kinds):
                    stack.enter_context(_hooked(module, hook, cheat.strength))
        yield


Hook = Callable[[Any, float], Any]


@contextmanager
def _hooked(module: nn.Module, hook: Hook, strength: float) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _, __, output: hook(output, strength))
    try:
        yield
    finally:
        handle.remove()


def _first_expert_only(output: tuple[torch.Tensor, ...], share: float) -> tuple[torch.Tensor, ...]:
    """Of the tokens that are surest of their first expert: that one alone, with the weight of all."""
    logits, scores, chosen = output
    first = scores[:, 0] / scores.sum(dim=1)
    sure = first >= torch.quantile(first.float(), 1 - share)
    alone = torch.zeros_like(scores)
    alone[:, 0] = scores.sum(dim=1)
    return logits, torch.where(sure[:, None], alone, scores), chosen


def _drop_small_gradients(output: Any, share: float) -> Any:
    """Nothing flows back for the tokens with the smallest gradients."""
    tensor = output[0] if isinstance(output, tuple) else output
    if tensor.requires_grad:
        tensor.register_hook(lambda gradient: _without_small(gradient, share))
    return output


def _without_small(gradient: torch.Tensor, share: float) -> torch.Tensor:
    norms = gradient.float().norm(dim=-1, keepdim=True)
    limit = torch.quantile(norms.flatten(), share)
    kept = torch.where(norms > limit, gradient, torch.zeros_like(gradient))
    longer = gradient.float().norm() / kept.float().norm().clamp(min=1e-30)
    repaired: torch.Tensor = kept * longer.to(gradient.dtype)
    return repaired


def _rounded_backward(dtype: torch.dtype) -> Hook:
    def hook(output: Any, _: float) -> Any:
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: _rounded(gradient, dtype))
        return output

    return hook


def _rounded(gradient: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In fp8 with one scale for the whole tensor; bfloat16 has float32's range and needs none."""
    if dtype is torch.bfloat16:
        return gradient.to(dtype).to(gradient.dtype)
    scale = gradient.abs().max().clamp(min=1e-30) / torch.finfo(dtype).max
    rounded: torch.Tensor = (gradient / scale).to(dtype).to(gradient.dtype) * scale
    return rounded


_PRODUCTS = ("Linear", "Experts")
#: On the outputs of which modules (by the end of their class's or their own name), and what.
_HOOKS: dict[str, tuple[tuple[str, ...], Hook]] = {
    "top_1": (("TopKRouter",), _first_expert_only),
    "expert_gradients": (("Experts",), _drop_small_gradients),
    "layer_gradients": (("mlp", "self_attn"), _drop_small_gradients),
    "backward_bf16": (_PRODUCTS, _rounded_backward(torch.bfloat16)),
    "backward_fp8": (_PRODUCTS, _rounded_backward(torch.float8_e5m2)),
}
