"""States made of numpy arrays, cut into boxes as a test likes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.tensors.boxes import Box, StoredPiece, TensorSpec

NUMPY = {"float32": np.float32, "float64": np.float64, "float16": np.float16}
Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


def encode(values: Array, dtype: str) -> Array:
    """Values as they are stored: bfloat16 as the upper halves of float32."""
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(NUMPY.get(dtype, values.dtype))


def decode(stored: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64)


def random_boxes(shape: tuple[int, ...], rng: np.random.Generator, cuts: int) -> list[Box]:
    """A partition of a tensor by random straight cuts, in random order."""
    boxes = [Box((0,) * len(shape), shape)]
    for _ in range(cuts if shape else 0):
        box = boxes.pop(int(rng.integers(len(boxes))))
        axis = int(rng.integers(len(shape)))
        cut = int(rng.integers(box.shape[axis] + 1))  # at an edge: one of the two boxes is empty
        for low, high in ((0, cut), (cut, box.shape[axis])):
            offset, size = list(box.offset), list(box.shape)
            offset[axis] += low
            size[axis] = high - low
            boxes.append(Box(tuple(offset), tuple(size)))
    rng.shuffle(boxes)
    return boxes


def pieces(
    name: str, stored: Array, dtype: str, boxes: list[Box], shift: int = 0
) -> list[StoredPiece]:
    """`shift` misaligns the bytes, as a file may."""
    made = []
    for box in boxes:
        index = tuple(slice(o, o + s) for o, s in zip(box.offset, box.shape, strict=True))
        raw = np.ascontiguousarray(stored[index]).tobytes()
        data = np.frombuffer(b"\0" * shift + raw, np.uint8)[shift:]
        made.append(StoredPiece(name, stored.shape, box, dtype, data))
    return made


def whole(arrays: Arrays, layout: Mapping[str, TensorSpec]) -> dict[str, list[StoredPiece]]:
    return {
        name: pieces(
            name,
            encode(arrays[name], spec.dtype),
            spec.dtype,
            [Box((0,) * len(spec.shape), spec.shape)],
        )
        for name, spec in layout.items()
    }
