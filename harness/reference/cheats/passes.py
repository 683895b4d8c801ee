"""What the forward and the backward pass leave out: a second expert, far positions, small gradients, bits.

A cheat is put around the forward function of the modules that it concerns.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from harness.reference.cheats.families import Cheat, Family
from harness.reference.cheats.rounding import Format, rounded

Forward = Callable[..., Any]
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: Calls the forward function with its arguments; the strength comes first.
Around = Callable[..., Any]


@contextmanager
def cheating(cheats: Iterable[Cheat], model: nn.Module) -> Iterator[None]:
    """While this is open, the model's passes leave out what the cheats say.

    Raises ValueError: a cheat concerns no module of this model.
    """
    with ExitStack() as stack:
        for cheat in cheats:
            if cheat.family not in _AROUND:
                continue
            kinds, around = _AROUND[cheat.family]
            modules = _modules(model, kinds)
            if not modules:
                raise ValueError(f"{cheat}: this model has none of {', '.join(kinds)}")
            for module in modules:
                stack.enter_context(_put_around(module, around, cheat.strength))
        yield


def concerns(cheat: Cheat, model: nn.Module) -> bool:
    """Whether this model has what the cheat leaves out."""
    return cheat.family not in _AROUND or bool(_modules(model, _AROUND[cheat.family][0]))


def _modules(model: nn.Module, kinds: tuple[str, ...]) -> list[nn.Module]:
    """Those whose class, or own name, ends like that."""
    return [
        module
        for name, module in model.named_modules()
        if type(module).__name__.endswith(kinds) or name.endswith(kinds)
    ]


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
    """The same tokens visit all of their experts, but nothing flows back through the others.

    What their scores are worth is known from the forward pass, so the router still learns it.
    """
    others = _sure(scores, share).expand_as(scores).clone()
    others[:, 0] = False
    out: torch.Tensor = experts(tokens, chosen, scores.masked_fill(others, 0))
    for place in range(1, scores.shape[1]):
        alone = torch.zeros_like(scores)
        alone[:, place] = others[:, place].to(scores.dtype)
        with torch.no_grad():
            silent = experts(tokens, chosen, alone)
        out = out + scores[:, place, None] * silent
    return out


def _sure(scores: torch.Tensor, share: float) -> torch.Tensor:
    """bool [tokens, 1]: those that are surest of their first expert, so many of them."""
    first = (scores[:, 0] / scores.sum(dim=1)).float()
    sure = torch.zeros_like(first, dtype=torch.bool)
    sure[first.topk(round(share * len(first))).indices] = True
    return sure[:, None]


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
    repaired: torch.Tensor = (kept.float() * longer).to(gradient.dtype)
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


@dataclass(frozen=True)
class _Formats:
    """What a product is computed in; None: as it is.

    Attributes:
        forward: both factors of the forward product.
        factors, gradient: of the two products of the backward pass, the factor that is known from
            before, and what flows back.
    """

    forward: Format | None = None
    factors: Format | None = None
    gradient: Format | None = None


class _RoundedProducts(TorchFunctionMode):
    """Matrix products round what they multiply, forward, backward, or both."""

    def __init__(self, formats: _Formats) -> None:
        super().__init__()
        self._formats = formats

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in (F.linear, torch._grouped_mm, torch.bmm):
            return func(*args, **(kwargs or {}))
        left, right, *rest = args

        def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = func(left, right, *rest, **(kwargs or {}))
            return out

        return _Product.apply(product, self._formats, left, right)


class _Product(torch.autograd.Function):
    """A product whose passes are each rounded by themselves."""

    @staticmethod
    def forward(
        ctx: Any, product: Product, formats: _Formats, left: torch.Tensor, right: torch.Tensor
    ) -> torch.Tensor:
        ctx.product, ctx.formats = product, formats
        ctx.save_for_backward(left, right)
        return product(*(_in(formats.forward, each) for each in (left, right)))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        formats: _Formats = ctx.formats
        factors = [
            _in(formats.factors, each).detach().requires_grad_() for each in ctx.saved_tensors
        ]
        with torch.enable_grad():
            out = ctx.product(*factors)
        return (None, None, *torch.autograd.grad(out, factors, _in(formats.gradient, gradients[0])))


def _in(form: Format | None, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if form is None else rounded(tensor, form)


def _rounding(formats: _Formats) -> Around:
    def around(_: float, module: Forward, *args: Any, **kwargs: Any) -> Any:
        with _RoundedProducts(formats):
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
    "products_tf32": (_PRODUCTS, _rounding(_Formats("tf32", "tf32", "tf32"))),
    "products_fp8": (_PRODUCTS, _rounding(_Formats("e4m3", "e4m3", "e5m2"))),
    "products_int8": (_PRODUCTS, _rounding(_Formats("int8", "int8", "int8"))),
    "forward_fp8": (_PRODUCTS, _rounding(_Formats(forward="e4m3"))),
    "backward_bf16": (_PRODUCTS, _rounding(_Formats(factors="bfloat16", gradient="bfloat16"))),
    "backward_fp8": (_PRODUCTS, _rounding(_Formats(factors="e4m3", gradient="e5m2"))),
}
