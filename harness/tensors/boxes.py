"""Boxes of tensors, as they lie in files: the vocabulary of commitments, states and comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class TensorKind(StrEnum):
    """How a parameter is judged: as one, or also slice by slice along its first dimension."""

    PLAIN = "plain"
    EXPERTS = "experts"  # fused routed experts [num_experts, ...]: every expert on its own
    EMBEDDING = "embedding"  # input embedding [vocabulary, hidden]: every row on its own


@dataclass(frozen=True)
class TensorSpec:
    """What the benchmark says of one tensor of the final state."""

    shape: tuple[int, ...]
    dtype: str  # torch's name without the prefix
    kind: TensorKind = TensorKind.PLAIN


@dataclass(frozen=True)
class Box:
    """An axis-aligned part of a tensor: `offset[d] <= index[d] < offset[d] + shape[d]`."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def intersect(self, other: "Box") -> "Box | None":
        """The common part, or None where there is none."""
        low = tuple(max(a, b) for a, b in zip(self.offset, other.offset, strict=True))
        high = tuple(
            min(a + m, b + n)
            for a, m, b, n in zip(self.offset, self.shape, other.offset, other.shape, strict=True)
        )
        if any(h <= lo for lo, h in zip(low, high, strict=True)):
            return None
        return Box(low, tuple(h - lo for lo, h in zip(low, high, strict=True)))

    def within(self, other: "Box") -> tuple[slice, ...]:
        """Where this box, a part of `other`, lies in an array of that one."""
        return tuple(
            slice(low - start, low - start + size)
            for low, start, size in zip(self.offset, other.offset, self.shape, strict=True)
        )


@dataclass(frozen=True)
class StoredPiece:
    """One box of one tensor in a memory-mapped file.

    Attributes:
        data: row-major bytes of the box, uint8 [numel * itemsize], little-endian, not copied.
        file: where they lie, for another process to map; empty for a piece that lies in memory.
        start: byte of the file at which they begin.
    """

    name: str
    tensor_shape: tuple[int, ...]
    box: Box
    dtype: str
    data: npt.NDArray[np.uint8]
    file: str = ""
    start: int = 0


# A state: for every tensor its pieces, which together cover each element exactly once.
State = Mapping[str, Sequence[StoredPiece]]
