"""What the forward and the backward pass leave out: a second expert, far positions, small gradients, bits.

A cheat is put around the forward function of the modules that it concerns.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from harness.reference.cheats.families import Cheat, Family
from harness.reference.cheats.rounding import Format, rounded

Forward = Callable[..., Any]
#: Calls the forward function with its arguments; the strength comes first.
Around = Callable[..., Any]


@contextmanager
def cheating(cheats: Iterable[Cheat], model: nn.Module) -> Iterator[None]:
    """While this is open, the model's passes leave out what the cheats say."""
    with ExitStack() as stack:
        for cheat in cheats:
            kinds, around = _AROUND.get(cheat.family, ((), None))
            for name, module in model.named_modules():
                if around is not None and (
                    type(module).__name__.endswith(kinds) or name.endswith(kinds)
                ):
                    stack.enter_context(_put_around(module, around, cheat.strength))
        yield


@contextmanager
def _put_around(module: nn.Module, around: Around, strength: float) -> Iterator[None]:
    own, forward = vars(module), module.forward
    before = own.get("forward")
    own["forward"] = lambda *args, **kwargs: around(strength, forward, *args, **kwargs)
    try:
        yield
    finally:
        if before is None:
            del own["forward"]
        else:
            own["forward"] = before


# --- experts --------------------------------------------------------------------------------------


def _first_expert_only(share: float, router: Forward, *args: Any) -> tuple[torch.Tensor, ...]:
    """Of the tokens that are surest of their first expert: that one alone, with the weight of all."""
    logits, scores, chosen = router(*args)
    alone = torch.zeros_like(scores)
    alone[:, 0] = scores.sum(dim=1)
    return logits, torch.where(_sure(scores, share), alone, scores), chosen


def _first_expert_learns(
    share: float,
    experts: Forward,
    tokens: torch.Tensor,
    chosen: torch.Tensor,
    scores: torch.Tensor,
) -> torch.Tensor:
    """The same tokens visit all of their experts, but nothing flows back through the others."""
    others = _sure(scores, share).expand_as(scores).clone()
    others[:, 0] = False
    learning = experts(tokens, chosen, scores.masked_fill(others, 0))
    with torch.no_grad():
        silent = experts(tokens, chosen, scores.masked_fill(~others, 0))
    out: torch.Tensor = learning + silent
    return out


def _sure(scores: torch.Tensor, share: float) -> torch.Tensor:
    """bool [tokens, 1]: those that are surest of their first expert, so many of them."""
    first = scores[:, 0] / scores.sum(dim=1)
    return (first >= torch.quantile(first.float(), 1 - share))[:, None]


# --- gradients that are too small to matter -------------------------------------------------------


def _drop_small_gradients(share: float, forward: Forward, *args: Any, **kwargs: Any) -> Any:
    """Nothing flows back for the tokens with the smallest gradients."""
    output = forward(*args, **kwargs)
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


# --- positions that are far away ------------------------------------------------------------------


def _near_positions(share: float, attention: Forward, *args: Any, **kwargs: Any) -> Any:
    with _Window(share):
        return attention(*args, **kwargs)


class _Window(TorchFunctionMode):
    """Attention sees the positions that are near, all but a share of a row's length."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            queries, keys = args[0].shape[-2], args[1].shape[-2]
            back = torch.arange(queries)[:, None] - torch.arange(keys)
            seen = (back >= 0) & (back < round((1 - self._share) * keys))
            if (mask := kwargs.get("attn_mask")) is not None:
                seen = seen.to(mask.device) & (mask if mask.dtype == torch.bool else mask >= 0)
            kwargs |= {"attn_mask": seen.to(args[0].device), "is_causal": False}
        return func(*args, **kwargs)


# --- bits -----------------------------------------------------------------------------------------


class _RoundedProducts(TorchFunctionMode):
    """Matrix products round their factors, or what flows back into them, or both."""

    def __init__(self, forward: Format | None, backward: Format | None) -> None:
        super().__init__()
        self._forward, self._backward = forward, backward

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in (F.linear, F.grouped_mm, torch.bmm):
            return func(*args, **(kwargs or {}))
        left, right, *rest = args
        if (form := self._forward) is not None:
            left, right = (_straight(each, form) for each in (left, right))
        out = func(left, right, *rest, **(kwargs or {}))
        if (back := self._backward) is not None and out.requires_grad:
            out.register_hook(lambda gradient: rounded(gradient, back))
        return out


def _straight(tensor: torch.Tensor, form: Format) -> torch.Tensor:
    """Rounded, with a gradient as if it were not (which is that of the product's rounded factors)."""
    with torch.no_grad():
        change = rounded(tensor, form) - tensor
    return tensor + change


def _rounding(forward: Format | None, backward: Format | None) -> Around:
    def around(_: float, module: Forward, *args: Any, **kwargs: Any) -> Any:
        with _RoundedProducts(forward, backward):
            return module(*args, **kwargs)

    return around


# Routers multiply without a Linear: who rounds their scores sends tokens elsewhere, and is seen at once.
_PRODUCTS: Final = ("Linear", "Experts")
#: Around which modules (by the end of their class's or their own name), and what.
_AROUND: Final[dict[Family, tuple[tuple[str, ...], Around]]] = {
    "top_1": (("TopKRouter",), _first_expert_only),
    "top_1_backward": (("Experts",), _first_expert_learns),
    "expert_gradients": (("Experts",), _drop_small_gradients),
    "attention_gradients": (("self_attn",), _drop_small_gradients),
    "layer_gradients": (("mlp", "self_attn"), _drop_small_gradients),
    "window": (("self_attn",), _near_positions),
    "products_tf32": (_PRODUCTS, _rounding("tf32", "tf32")),
    "products_fp8": (_PRODUCTS, _rounding("e4m3", "e5m2")),
    "products_int8": (_PRODUCTS, _rounding("int8", "int8")),
    "forward_fp8": (_PRODUCTS, _rounding("e4m3", None)),
    "backward_bf16": (_PRODUCTS, _rounding(None, "bfloat16")),
    "backward_fp8": (_PRODUCTS, _rounding(None, "e5m2")),
}
