"""Matrix products in bfloat16, on a CPU that has no instructions for them.

torch computes them there number by number, many times slower than in float32. A product of two bfloat16
numbers is exact in float32, and every kernel adds products up in float32: so the same matrices multiplied
in float32, and rounded at the end, are what a device with such instructions gives, but for the order of a
sum. Attention is several products in one kernel: its backward pass is not rounded between them, and its
forward pass, which is fast enough, is left as it is.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
PRODUCTS: Final = (
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten._grouped_mm.default,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
)
#: torch's levels of CPU instructions for which there are bfloat16 products.
WITH_BFLOAT16: Final = ("AVX512", "SVE256")


def fast_products(dtype: str, device: torch.device) -> AbstractContextManager[object]:
    """While this is open, products in `dtype` of both passes take hardly longer than in float32."""
    native = torch.backends.cpu.get_cpu_capability() in WITH_BFLOAT16
    if dtype != "bfloat16" or device.type != "cpu" or native:
        return nullcontext()
    return InFloat32()


class InFloat32(TorchDispatchMode):
    """Products of bfloat16 tensors are computed in float32, and rounded."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or args[0].dtype is not torch.bfloat16:
            return func(*args, **kwargs)
        found = func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})
        return (
            found.bfloat16() if isinstance(found, torch.Tensor) else [g.bfloat16() for g in found]
        )


def _wide(value: Any) -> Any:
    tensor = isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16
    return value.float() if tensor else value
