"""Trusted states: the snapshot's initial weights and the reference's final ones, memory-mapped.

Also the typed view of a stored piece that comparison and attribution share.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import Code, JudgeError
from harness.tensors.boxes import Box, State, StoredPiece, TensorSpec
from harness.tensors.shards import ShardEntry, ShardError, read_shard

# numpy has no bfloat16: its bits are the upper half of a float32's.
_FLOATING = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2"}
_BITS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def is_floating(dtype: str) -> bool:
    """Whether tensors of this dtype are compared by their update; all others bit by bit."""
    return dtype in _FLOATING


def as_array(piece: StoredPiece) -> npt.NDArray[Any]:
    """The piece in its box's shape, not copied.

    Returns:
        float32, float64 or float16; uint16 for the bits of bfloat16; for every other dtype the
        bits as an unsigned integer of the same size.

    Raises:
        JudgeError: the number of bytes does not fit the box.
    """
    numel = piece.box.numel
    dtype = _FLOATING.get(piece.dtype)
    if dtype is None:
        itemsize = piece.data.size // numel if numel else 1
        dtype = _BITS.get(itemsize, "<u1")
    if piece.data.size != numel * np.dtype(dtype).itemsize:
        raise JudgeError(
            Code.INTERNAL,
            f"{piece.name}: {piece.data.size} bytes are not a box of {numel} x {piece.dtype}",
        )
    return piece.data.view(dtype).reshape(piece.box.shape)


def as_float32(array: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """Values of a part of `as_array` of a floating piece of torch dtype `dtype`, as float32."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)


def trusted_state(source: Path | Sequence[Path], layout: Mapping[str, TensorSpec]) -> State:
    """A state in files that we wrote: whole tensors, or the shards that DCP writes.

    Args:
        source: a folder, of which all *.safetensors are read, or the files themselves.
        layout: the tensors that must be there.

    Returns:
        For every tensor of `layout` its pieces, each element covered exactly once.

    Raises:
        JudgeError(REFERENCE_FAILED): a part is missing, there twice, or not as in `layout`.
    """
    pieces: dict[str, list[StoredPiece]] = {name: [] for name in layout}
    files = sorted(source.glob("*.safetensors")) if isinstance(source, Path) else source
    for file in files:
        for entry in _read(file):
            spec = layout.get(entry.name)
            if spec is None:
                raise _broken(f"{file} holds {entry.name}, which is no tensor of the benchmark")
            box = Box(tuple(entry.offset), tuple(entry.shape))
            pieces[entry.name].append(
                StoredPiece(
                    entry.name, spec.shape, box, entry.dtype, entry.data, entry.file, entry.start
                )
            )
    for name, spec in layout.items():
        _check_tensor(name, spec, pieces[name])
    return pieces


def _read(file: Path) -> list[ShardEntry]:
    try:
        return read_shard(file, file.stat().st_size)
    except (ShardError, OSError) as error:
        raise _broken(f"cannot read {file}: {error}") from error


def _check_tensor(name: str, spec: TensorSpec, pieces: Sequence[StoredPiece]) -> None:
    for piece in pieces:
        if piece.dtype != spec.dtype:
            raise _broken(f"{name} is stored as {piece.dtype}, the benchmark's is {spec.dtype}")
        if not _inside(piece.box, spec.shape):
            raise _broken(f"{name}: {piece.box} is not inside shape {spec.shape}")
    # Boxes inside the tensor that are disjoint and add up to its size cover it exactly once.
    boxes = [piece.box for piece in pieces if piece.box.numel]
    if _overlap(boxes):
        raise _broken(f"{name} has elements that are stored twice")
    covered = sum(box.numel for box in boxes)
    if covered != math.prod(spec.shape) or not pieces:
        raise _broken(f"{name}: {covered} of {math.prod(spec.shape)} elements are stored")


def _inside(box: Box, shape: tuple[int, ...]) -> bool:
    return len(box.offset) == len(box.shape) == len(shape) and all(
        low >= 0 and low + size <= whole
        for low, size, whole in zip(box.offset, box.shape, shape, strict=True)
    )


def _overlap(boxes: Iterable[Box]) -> bool:
    seen: list[Box] = []
    for box in boxes:
        if any(box.intersect(other) is not None for other in seen):
            return True
        seen.append(box)
    return False


def _broken(message: str) -> JudgeError:
    return JudgeError(Code.REFERENCE_FAILED, message)
