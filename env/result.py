"""What `inner_steps` returned, brought into one form: a loss, a count, and boxes of tensors.

Accepted are any object with the contract's attributes, wrapper prefixes in names, DTensors, and the
per-expert names that transformers used before it fused the experts of a layer into one tensor.
"""

import math
import numbers
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import _StridedShard

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PER_EXPERT = re.compile(r"(?P<layer>.+\.experts)\.(?P<expert>\d+)\.(?P<matrix>\w+)\.weight")
# Older matrix names: which fused tensor they are part of, and which half of its rows.
_FUSED = {
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
    "down_proj": ("down_proj", None),
    "w1": ("gate_up_proj", 0),
    "w3": ("gate_up_proj", 1),
    "w2": ("down_proj", None),
}


class ResultError(Exception):
    """The result is not of the contract's form; the message says what to change."""


class LocalBox(NamedTuple):
    """A box of tensor `name` that this rank holds: `tensor` sits at `offset` of `tensor_shape`."""

    name: str
    tensor_shape: tuple[int, ...]
    offset: tuple[int, ...]
    tensor: torch.Tensor


@dataclass(frozen=True)
class LocalResult:
    final_loss: float | None
    total_tokens: int | None
    boxes: tuple[LocalBox, ...]


@dataclass(frozen=True)
class ModelNames:
    """What the tensors of the given model are called.

    Attributes:
        shapes: shape of every tensor of its state dict; for the per-expert names.
        passing: buffers that a state dict leaves out, such as a rotary embedding's frequencies: whoever
            gathers a state by hand often has them in it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    passing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: nn.Module) -> "ModelNames":
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        buffers = (name for name, _ in model.named_buffers(remove_duplicate=False))
        return cls(shapes, frozenset(buffers) - shapes.keys())


def read_result(result: object, names: ModelNames) -> LocalResult:
    """Check and normalise what `inner_steps` returned on this rank.

    Args:
        result: any object or mapping with `final_loss`, `total_tokens` and `final_state`.
        names: of the given model.

    Raises:
        ResultError: a field is missing or of a type that the contract does not know.
    """
    fields = ("final_loss", "total_tokens", "final_state")
    if isinstance(result, Mapping):
        found = {field: result[field] for field in fields if field in result}
    else:
        found = {field: getattr(result, field) for field in fields if hasattr(result, field)}
    missing = [field for field in fields if field not in found]
    if missing:
        raise ResultError(
            f"inner_steps returned {type(result).__name__} without {', '.join(missing)}"
        )
    return LocalResult(
        final_loss=_loss(found["final_loss"]),
        total_tokens=_tokens(found["total_tokens"]),
        boxes=local_boxes(found["final_state"], names),
    )


def _loss(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value.detach())
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise ResultError(
        f"final_loss is {_describe(value)}; it must be a float or a one-element tensor"
    )


def _tokens(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_floating_point():
        return int(value.detach())
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise ResultError(f"total_tokens is {_describe(value)}; it must be an int")


def local_boxes(state: object, names: ModelNames) -> tuple[LocalBox, ...]:
    """The boxes of a state dict that this rank holds.

    Raises ResultError for what is not a dict of tensors.
    """
    if state is None:
        return ()
    if not isinstance(state, Mapping):
        raise ResultError(
            f"final_state is {_describe(state)}; it must be a dict of tensors or None"
        )
    boxes = []
    for name, tensor in state.items():
        if not isinstance(name, str) or not 0 < len(name) <= 256:
            raise ResultError(f"final_state has the key {name!r:.80}; keys must be parameter names")
        if not isinstance(tensor, torch.Tensor):
            raise ResultError(f"final_state[{name!r}] is {_describe(tensor)}; it must be a tensor")
        canonical = canonical_name(name)
        if canonical in names.passing:
            continue
        for box in _boxes(canonical, tensor.detach()):
            if box.tensor.numel() or not math.prod(box.tensor_shape):
                boxes.append(_fused(box, names.shapes))
    return tuple(boxes)


def canonical_name(name: str) -> str:
    """The parameter's name in the unwrapped model."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _boxes(name: str, tensor: torch.Tensor) -> Iterator[LocalBox]:
    """What this rank holds of a tensor: one box, or several where a strided shard has gaps."""
    shape = tuple(tensor.shape)
    if not isinstance(tensor, DTensor):
        yield LocalBox(name, shape, (0,) * len(shape), tensor)
        return
    if any(placement.is_partial() for placement in tensor.placements):
        raise ResultError(f"final_state[{name!r}] is a DTensor with a Partial placement: reduce it")
    local = tensor.to_local()
    if not any(isinstance(placement, _StridedShard) for placement in tensor.placements):
        _, offset = compute_local_shape_and_global_offset(
            tensor.shape, tensor.device_mesh, tensor.placements
        )
        yield LocalBox(name, shape, tuple(offset), local)
        return
    for stretches in product(*(_stretches(tensor, dim) for dim in range(tensor.ndim))):
        part = local[tuple(slice(begin, begin + size) for _, begin, size in stretches)]
        yield LocalBox(name, shape, tuple(start for start, _, _ in stretches), part)


def _stretches(tensor: DTensor, dim: int) -> list[tuple[int, int, int]]:
    """Unbroken runs along `dim` that this rank holds: (start in the whole, start in the local, size).

    Found by sharding the indices 0, 1, ... in the same way, which sends nothing.
    """
    cuts = [
        placement if getattr(placement, "dim", None) == dim else Replicate()
        for placement in tensor.placements
    ]
    shape = [1] * tensor.ndim
    shape[dim] = tensor.shape[dim]
    indices = torch.arange(tensor.shape[dim]).view(shape)
    sharded = distribute_tensor(indices, tensor.device_mesh, cuts, src_data_rank=None)
    held = sharded.to_local().flatten().cpu()
    breaks = ((held.diff() != 1).nonzero().flatten() + 1).tolist()
    begins = [0, *breaks] if len(held) else []
    ends = [*begins[1:], len(held)]
    return [
        (int(held[begin]), begin, end - begin) for begin, end in zip(begins, ends, strict=False)
    ]


def _fused(box: LocalBox, shapes: Mapping[str, tuple[int, ...]]) -> LocalBox:
    """One expert's matrix as the box of the fused tensor that it is; other boxes as they are."""
    match = _PER_EXPERT.fullmatch(box.name)
    if box.name in shapes or match is None or match["matrix"] not in _FUSED:
        return box
    matrix, half = _FUSED[match["matrix"]]
    name = f"{match['layer']}.{matrix}".replace(".block_sparse_moe.", ".mlp.")
    shape = shapes.get(name)
    rows = 0 if shape is None or half is None else half * (shape[1] // 2)
    if shape is None or len(shape) != 3 or len(box.offset) != 2:
        return box
    offset = (int(match["expert"]), rows + box.offset[0], box.offset[1])
    return LocalBox(name, shape, offset, box.tensor.unsqueeze(0))


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{value!r:.80} ({type(value).__name__})"
