"""Products in bfloat16 where a CPU has no instructions for them: the same numbers, in less time."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from harness.reference.products import InFloat32, fast_products

CPU = torch.device("cpu")
HALF_ULP = 2.0**-8  # bfloat16 has 8 bits
OFFSETS = torch.tensor([5, 9, 16], dtype=torch.int32)


def attention(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, key, is_causal=True)


PRODUCTS: dict[str, tuple[Callable[..., torch.Tensor], tuple[tuple[int, ...], ...]]] = {
    "mm": (torch.mm, ((16, 24), (24, 8))),
    "addmm": (torch.addmm, ((8,), (16, 24), (24, 8))),
    "bmm": (torch.bmm, ((3, 16, 24), (3, 24, 8))),
    "baddbmm": (torch.baddbmm, ((3, 16, 8), (3, 16, 24), (3, 24, 8))),
    "linear": (F.linear, ((2, 16, 24), (8, 24))),
    "grouped": (lambda a, b: F.grouped_mm(a, b, offs=OFFSETS), ((16, 24), (3, 24, 8))),
}


def operands(shapes: tuple[tuple[int, ...], ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]


def passes(
    product: Callable[..., torch.Tensor], given: list[torch.Tensor], dtype: torch.dtype
) -> list[torch.Tensor]:
    """The product and its gradients."""
    own = [each.detach().to(dtype).requires_grad_() for each in given]
    out = product(*own)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape, dtype=torch.bfloat16).to(dtype))
    return [out.detach(), *(each.grad for each in own if each.grad is not None)]


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_and_its_gradients_are_the_exact_ones_rounded_once(name: str) -> None:
    product, shapes = PRODUCTS[name]
    given = operands(shapes)
    exact = passes(product, given, torch.float32)
    with InFloat32():
        found = passes(product, given, torch.bfloat16)
    assert len(found) == len(shapes) + 1
    for mine, right in zip(found, exact, strict=True):
        assert mine.dtype is torch.bfloat16
        torch.testing.assert_close(mine.float(), right, rtol=HALF_ULP, atol=1e-6)


def test_attention_goes_backwards_as_exactly() -> None:
    given = operands(((1, 2, 12, 8), (1, 2, 12, 8)))
    exact = passes(attention, given, torch.float32)
    with InFloat32():
        found = passes(attention, given, torch.bfloat16)
    for mine, right in zip(found, exact, strict=True):
        assert mine.dtype is torch.bfloat16
        torch.testing.assert_close(mine.float(), right, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_in_another_dtype_stay_in_it(dtype: torch.dtype) -> None:
    left, right = torch.rand(3, 4, dtype=dtype), torch.rand(4, 5, dtype=dtype)
    with InFloat32():
        assert torch.equal(left @ right, torch.mm(left, right)) and (left @ right).dtype is dtype


@pytest.mark.parametrize(
    ("dtype", "device", "level", "wide"),
    [
        ("bfloat16", "cpu", "AVX2", True),
        ("bfloat16", "cpu", "DEFAULT", True),
        ("bfloat16", "cpu", "AVX512", False),
        ("bfloat16", "cuda", "AVX2", False),
        ("float32", "cpu", "AVX2", False),
    ],
)
def test_products_are_widened_only_where_nothing_multiplies_bfloat16(
    monkeypatch: pytest.MonkeyPatch, dtype: str, device: str, level: str, wide: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    context = fast_products(dtype, torch.device(device))
    assert isinstance(context, InFloat32 if wide else nullcontext)
