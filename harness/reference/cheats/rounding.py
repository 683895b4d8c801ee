"""Numbers rounded to fewer bits, in the dtype that they are in."""

from typing import Literal

import torch

Format = Literal["bfloat16", "tf32", "e4m3", "e5m2", "int8"]
_FP8: dict[str, torch.dtype] = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
_TINY = 1e-30


def rounded(tensor: torch.Tensor, form: Format) -> torch.Tensor:
    """The nearest values that the format has. With 8 bits there is one scale for the whole tensor.

    fp16 is not here: it keeps as many bits of a number as TF32, where its range is enough.
    """
    if form == "bfloat16":
        return tensor.bfloat16().to(tensor.dtype)
    if form == "tf32":
        return _with_ten_bits(tensor)
    largest = tensor.abs().max().float().clamp(min=_TINY)
    if form == "int8":
        scale = largest / 127
        return ((tensor / scale).round() * scale).to(tensor.dtype)
    scale = largest / torch.finfo(_FP8[form]).max
    return ((tensor / scale).to(_FP8[form]).float() * scale).to(tensor.dtype)


def rounded_rows(tensor: torch.Tensor) -> torch.Tensor:
    """To int8 with a scale for each row."""
    scale = tensor.abs().amax(dim=-1, keepdim=True).clamp(min=_TINY) / 127
    return (tensor / scale).round() * scale


def _with_ten_bits(tensor: torch.Tensor) -> torch.Tensor:
    """float32 has 23 bits behind the point, TF32 ten."""
    bits = tensor.float().contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32).to(tensor.dtype)
