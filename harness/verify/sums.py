"""The inner loop of a comparison: sums over one box of one tensor, block by block, on one thread.

Blocks are small enough for the cache. Their sums are float32 dot products over short runs, numpy's
fastest way to read memory once; everything above a run is float64.
"""

import itertools
import math
import mmap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import Code, JudgeError
from harness.tensors.boxes import Box
from harness.tensors.stored import is_floating

BLOCK_ELEMENTS = 1 << 18
CHUNK_ELEMENTS = 1 << 22
# Elements of one float32 dot product: short enough for its rounding not to matter, and below the
# size at which BLAS starts threads of its own.
RUN_ELEMENTS = 1 << 12
# A float32 sum of squares below this may have lost squares that are not normal numbers.
TINY_SUM = 1e-28
# Of |wr−w0|²: a |ws−w0|² that is less has lost its digits where it is put together of other sums.
LITTLE = 0.1
USES = ("initial", "reference", "submitted")
#: Of the sums: what the weights differ by, how far each side's gradients moved them (without what decay
#: alone does), how far each side moved them in all, and how large they were.
DIFFERENCE, REFERENCE, SUBMITTED, REFERENCE_IN_ALL, SUBMITTED_IN_ALL, INITIAL = range(6)
COLUMNS = 6

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PieceArray:
    """A stored piece as an array of its box's shape, as `states.as_array` gives it."""

    box: Box
    dtype: str  # torch's name
    array: Array


@dataclass(frozen=True)
class Chunk:
    """A box of one tensor, and what holds it in the three states.

    Attributes:
        name: of the tensor.
        box: of one dimension at least.
        sources: pieces of the initial, the reference's and the submitted state that touch the box.
        first: index of the box's first slice.
        slices: number of slices whose sums are kept apart; 1 for a PLAIN tensor.
        left: part of the initial weights that zero gradients would leave; 1 without weight decay.
    """

    name: str
    box: Box
    sources: tuple[Sequence[PieceArray], Sequence[PieceArray], Sequence[PieceArray]]
    first: int
    slices: int
    left: float = 1.0


@dataclass(frozen=True)
class Sums:
    """Sums over one chunk: float64 [slices, COLUMNS], and counts.

    With a the chunk's `left`: |ws−wr|², |wr−a·w0|², |ws−a·w0|², |wr−w0|², |ws−w0|², |w0|². Where a is 1 the
    last is not computed and 0, and the two before it are the two before them.
    """

    sums: Floats
    nonfinite: int
    different: int


def cut(box: Box, limit: int) -> Iterator[Box]:
    """Cut a box into row-major boxes of about equal size, none above `limit` elements."""
    shape = box.shape
    axis = 0
    while math.prod(shape[axis + 1 :]) > limit:
        axis += 1
    most = max(1, limit // math.prod(shape[axis + 1 :]))
    count = math.ceil(shape[axis] / most)
    edges = [shape[axis] * index // count for index in range(count + 1)]
    for leading in np.ndindex(shape[:axis]):
        for low, high in itertools.pairwise(edges):
            start = (*leading, low, *(0 for _ in shape[axis + 1 :]))
            offset = tuple(o + s for o, s in zip(box.offset, start, strict=True))
            yield Box(offset, (*(1 for _ in leading), high - low, *shape[axis + 1 :]))


class Scratch(threading.local):
    """Buffers of one block, one set a thread, made on first use."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, np.dtype[Any]], Array] = {}

    def get(self, use: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        key = (use, dtype)
        if key not in self._buffers:
            self._buffers[key] = np.empty(BLOCK_ELEMENTS, dtype)
        return self._buffers[key][: math.prod(shape)].reshape(shape)


def run(chunk: Chunk, scratch: Scratch) -> Sums:
    """Sums over one chunk, block by block. Infinities and NaN are counted, not warned about.

    Raises:
        JudgeError(INTERNAL): the pieces do not cover the box.
        JudgeError(REFERENCE_FAILED): the initial or the reference's values are not finite.
    """
    sums = np.zeros((chunk.slices, COLUMNS))
    nonfinite = different = 0
    with np.errstate(all="ignore"):
        for first, rows, block in _blocks(chunk, scratch):
            if not is_floating(chunk.sources[1][0].dtype):
                different += int(np.count_nonzero(block[2] != block[1]))
                continue
            block_sums, bad = _block_sums(chunk, block, rows, scratch)
            sums[first : first + rows] += block_sums
            nonfinite += bad
    for piece in itertools.chain(*chunk.sources):
        common = piece.box.intersect(chunk.box)
        if common is not None:
            _release(piece.array[common.within(piece.box)])
    return Sums(sums, nonfinite, different)


def _blocks(chunk: Chunk, scratch: Scratch) -> Iterator[tuple[int, int, list[Array]]]:
    """The first slice of each block, of how many it has something, and the elements in each state.

    Threads share one interpreter: where the chunk lies in one run of memory in every state, as it mostly
    does, blocks are cut from that, which takes a fraction of the time that boxes take.
    """
    flat = [_flat(pieces, chunk.box) for pieces in chunk.sources]
    if all(each is not None for each in flat):
        length = chunk.box.numel // chunk.slices
        rows = max(1, BLOCK_ELEMENTS // length)
        for first in range(0, chunk.slices, rows):
            several = min(rows, chunk.slices - first)
            start, end = first * length, (first + several) * length
            for low in range(start, end, min(BLOCK_ELEMENTS, rows * length)):
                high = min(end, low + BLOCK_ELEMENTS)
                yield first, several, [each[low:high] for each in flat if each is not None]
        return
    for place in cut(chunk.box, BLOCK_ELEMENTS):
        block = [
            _stored(pieces, place, use, scratch)
            for pieces, use in zip(chunk.sources, USES, strict=True)
        ]
        first = place.offset[0] - chunk.box.offset[0] if chunk.slices > 1 else 0
        yield first, place.shape[0] if chunk.slices > 1 else 1, block


def _flat(pieces: Sequence[PieceArray], box: Box) -> Array | None:
    """The elements of a box as they lie in one piece, in a row; None where they do not."""
    if len(pieces) != 1 or pieces[0].box.intersect(box) != box:
        return None
    elements = pieces[0].array[box.within(pieces[0].box)]
    return elements.reshape(-1) if elements.flags.c_contiguous else None


def _stored(pieces: Sequence[PieceArray], box: Box, use: str, scratch: Scratch) -> Array:
    """The elements of a box as they are stored: a view where one piece holds all of it, else a copy.

    Putting them together costs one pass over the cache and keeps the reads of the files in order;
    working on strided views of them takes twice as long.
    """
    copied = 0
    for piece in pieces:
        common = piece.box.intersect(box)
        if common is None:
            continue
        elements = piece.array[common.within(piece.box)]
        if common == box:
            return elements
        copy = scratch.get(use + " stored", elements.dtype, box.shape)
        copy[common.within(box)] = elements
        copied += common.numel
    if copied != box.numel:
        raise JudgeError(Code.INTERNAL, f"the states compared do not cover {box} of a tensor")
    return copy


def _block_sums(
    chunk: Chunk, block: Sequence[Array], rows: int, scratch: Scratch
) -> tuple[Floats, int]:
    """The sums of every row, float64 [rows, COLUMNS], and the submission's non-finite elements."""
    names = [pieces[0].dtype for pieces in chunk.sources]
    dtype = np.dtype(np.float64 if "float64" in names else np.float32)
    w0, wr, ws = (
        _widened(stored, name, use, dtype, scratch)
        for stored, name, use in zip(block, names, USES, strict=True)
    )
    pairs = {DIFFERENCE: (ws, wr), REFERENCE: (wr, w0), SUBMITTED: (ws, w0)}
    if chunk.left != 1:
        decayed = scratch.get("decayed", dtype, ws.shape)
        np.multiply(w0, chunk.left, out=decayed)
        pairs |= {REFERENCE_IN_ALL: pairs[REFERENCE], SUBMITTED_IN_ALL: pairs[SUBMITTED]}
        pairs |= {REFERENCE: (wr, decayed), SUBMITTED: (ws, decayed)}
    sums = np.zeros((rows, COLUMNS))
    apart, moved = (
        np.subtract(*pairs[column], out=scratch.get(use, dtype, ws.shape)).reshape(rows, -1)
        for column, use in ((DIFFERENCE, "difference"), (REFERENCE, "moved"))
    )
    sums[:, DIFFERENCE], sums[:, REFERENCE] = _dots(apart, apart), _dots(moved, moved)
    directly = pairs.keys() - {DIFFERENCE, REFERENCE}
    # |ws−w0|² = |wr−w0|² + 2 (wr−w0)·(ws−wr) + |ws−wr|²: one pass less, unless most of it cancels.
    length = sums[:, REFERENCE] + 2 * _dots(moved, apart) + sums[:, DIFFERENCE]
    if (length >= LITTLE * sums[:, REFERENCE]).all():
        sums[:, SUBMITTED] = length
        directly -= {SUBMITTED}
    for column in directly:
        difference = np.subtract(*pairs[column], out=moved.reshape(ws.shape)).reshape(rows, -1)
        sums[:, column] = _dots(difference, difference)
    found = sums[:, list(pairs)]
    if not (found.min() >= TINY_SUM and found.max() < np.inf):
        for column, (left, right) in pairs.items():
            _correct(sums[:, column], left.reshape(rows, -1), right.reshape(rows, -1))
    if chunk.left == 1:
        sums[:, REFERENCE_IN_ALL] = sums[:, REFERENCE]
        sums[:, SUBMITTED_IN_ALL] = sums[:, SUBMITTED]
    else:
        sums[:, INITIAL] = _dots(w0.reshape(rows, -1), w0.reshape(rows, -1))
    nonfinite = 0
    if not np.isfinite(sums).all():
        if not (np.isfinite(wr).all() and np.isfinite(w0).all()):
            raise JudgeError(
                Code.REFERENCE_FAILED,
                f"{chunk.name}: the reference's weights are not finite; does the benchmark diverge?",
            )
        nonfinite = ws.size - int(np.count_nonzero(np.isfinite(ws)))
        sums[~np.isfinite(sums)] = np.inf
    return sums, nonfinite


def _widened(stored: Array, name: str, use: str, dtype: np.dtype[Any], scratch: Scratch) -> Array:
    """The values of a block as `dtype` (float32 or float64); float32 as it lies in the file."""
    if name == "bfloat16":
        bits = scratch.get(use + " bits", np.dtype(np.uint32), stored.shape)
        np.left_shift(stored, 16, out=bits, dtype=np.uint32)
        stored = bits.view(np.float32)
    if stored.dtype == dtype:
        return stored
    values = scratch.get(use, dtype, stored.shape)
    np.copyto(values, stored)
    return values


def _dots(left: Array, right: Array) -> Floats:
    """Dot products of rows, float64 [rows], in runs in the dtype that they have."""
    count, columns = left.shape
    whole = columns - columns % RUN_ELEMENTS
    if not whole:
        short: Floats = np.vecdot(left, right).astype(np.float64)
        return short
    runs = (each[:, :whole].reshape(count, -1, RUN_ELEMENTS) for each in (left, right))
    sums: Floats = np.vecdot(*runs).sum(axis=1, dtype=np.float64)
    if whole < columns:
        sums += np.vecdot(left[:, whole:], right[:, whole:])
    return sums


def _correct(sums: Floats, left: Array, right: Array) -> None:
    """Compute rows of |left − right|² whose squares left float32's range again, in float64."""
    doubtful = ~((sums >= TINY_SUM) & (sums < np.inf))
    equal = np.flatnonzero(sums == 0)
    if equal.size == len(sums):
        doubtful = (left != right).any(axis=1)
    elif equal.size:
        doubtful[equal] = (left[equal] != right[equal]).any(axis=1)
    if doubtful.any():
        again = left[doubtful].astype(np.float64)
        again -= right[doubtful]
        sums[doubtful] = np.vecdot(again, again)


def _release(view: Array) -> None:
    """Unmap what has been read of a file, so that resident memory does not grow with the model.

    The pages stay in the page cache. Only read-only mappings are touched: dropping the pages of
    any other would lose data.
    """
    mapping: object = view
    while isinstance(mapping, (np.ndarray, memoryview)):
        mapping = mapping.base if isinstance(mapping, np.ndarray) else mapping.obj
    if not isinstance(mapping, mmap.mmap):
        return
    whole = np.frombuffer(mapping, np.uint8)
    if whole.flags.writeable:
        return
    low, high = (bound - whole.ctypes.data for bound in np.lib.array_utils.byte_bounds(view))
    low -= low % mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, low, high - low)
