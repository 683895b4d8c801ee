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
from harness.verify.states import is_floating

BLOCK_ELEMENTS = 1 << 18
JOB_ELEMENTS = 1 << 22
# Elements of one float32 dot product: short enough for its rounding not to matter, and below the
# size at which BLAS starts threads of its own.
RUN_ELEMENTS = 1 << 12
# A float32 sum of squares below this may have lost squares that are not normal numbers.
TINY_SUM = 1e-28

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """The same box of one tensor in the three states: views of the files' memory."""

    name: str
    views: tuple[Array, Array, Array]  # initial, reference, submitted
    dtypes: tuple[str, str, str]
    first: int  # index of the box's first slice
    slices: int  # number of slices whose sums are kept apart; 1 for a PLAIN tensor


@dataclass(frozen=True)
class Sums:
    """Sums over one job: float64 [slices, 3] of |ws−wr|², |wr−w0|², |ws−w0|², and counts."""

    sums: Floats
    nonfinite: int
    different: int


def tiles(shape: tuple[int, ...], limit: int) -> Iterator[tuple[slice, ...]]:
    """Cut a box into row-major tiles of about equal size, none above `limit` elements."""
    axis = 0
    while math.prod(shape[axis + 1 :]) > limit:
        axis += 1
    most = max(1, limit // max(1, math.prod(shape[axis + 1 :])))
    parts = math.ceil(shape[axis] / most)
    edges = [shape[axis] * part // parts for part in range(parts + 1)]
    rest = tuple(slice(0, size) for size in shape[axis + 1 :])
    for leading in np.ndindex(shape[:axis]):
        fixed = tuple(slice(index, index + 1) for index in leading)
        for low, high in itertools.pairwise(edges):
            yield (*fixed, slice(low, high), *rest)


class Scratch(threading.local):
    """Buffers of one block, one set a thread, made on first use."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, type], Array] = {}

    def get(self, use: str, dtype: type, shape: tuple[int, ...]) -> Array:
        key = (use, dtype)
        if key not in self._buffers:
            self._buffers[key] = np.empty(BLOCK_ELEMENTS, dtype)
        return self._buffers[key][: math.prod(shape)].reshape(shape)


def run(job: Job, scratch: Scratch) -> Sums:
    """Sums over one job, block by block. Infinities and NaN are counted, not warned about."""
    sums = np.zeros((job.slices, 3))
    nonfinite = different = 0
    exact = not is_floating(job.dtypes[1])
    with np.errstate(all="ignore"):
        for tile in tiles(job.views[0].shape, BLOCK_ELEMENTS):
            block = [view[tile] for view in job.views]
            if exact:
                different += int(np.count_nonzero(block[2] != block[1]))
                continue
            rows = tile[0] if job.slices > 1 else slice(0, 1)
            block_sums, bad = _block_sums(job, block, rows.stop - rows.start, scratch)
            sums[rows] += block_sums
            nonfinite += bad
    for view in job.views:
        _release(view)
    return Sums(sums, nonfinite, different)


def _block_sums(
    job: Job, block: Sequence[Array], rows: int, scratch: Scratch
) -> tuple[Floats, int]:
    """The three sums of every row, float64 [rows, 3], and the submission's non-finite elements."""
    dtype = np.float64 if "float64" in job.dtypes else np.float32
    w0, wr, ws = (
        _widened(part, name, use, dtype, scratch)
        for part, name, use in zip(block, job.dtypes, ("w0", "wr", "ws"), strict=True)
    )
    difference = scratch.get("difference", dtype, ws.shape)
    sums = np.empty((rows, 3))
    for column, (left, right) in enumerate(((ws, wr), (wr, w0), (ws, w0))):
        np.subtract(left, right, out=difference)
        sums[:, column] = _row_sums(left, right, difference.reshape(rows, -1))
    nonfinite = 0
    if not np.isfinite(sums).all():
        if not (np.isfinite(wr).all() and np.isfinite(w0).all()):
            raise JudgeError(
                Code.REFERENCE_FAILED,
                f"{job.name}: the reference's weights are not finite; does the benchmark diverge?",
            )
        nonfinite = ws.size - int(np.count_nonzero(np.isfinite(ws)))
        sums[~np.isfinite(sums)] = np.inf
    return sums, nonfinite


def _widened(part: Array, name: str, use: str, dtype: type, scratch: Scratch) -> Array:
    """The values of a block as `dtype` (float32 or float64); float32 as it lies in the file."""
    if name == "bfloat16":
        bits = scratch.get(use + " bits", np.uint32, part.shape)
        np.left_shift(part, 16, out=bits, dtype=np.uint32)
        part = bits.view(np.float32)
    if part.dtype == dtype:
        return part
    values = scratch.get(use, dtype, part.shape)
    np.copyto(values, part)
    return values


def _row_sums(left: Array, right: Array, difference: Array) -> Floats:
    """Sum of squares of every row of `difference` = left − right, float64 [rows].

    In float32 first. Rows whose squares leave float32's range are computed again in float64.
    """
    rows, columns = difference.shape
    whole = columns - columns % RUN_ELEMENTS
    runs = difference[:, :whole].reshape(rows, whole // RUN_ELEMENTS, RUN_ELEMENTS)
    tail = difference[:, whole:]
    sums: Floats = np.vecdot(runs, runs).sum(axis=1, dtype=np.float64) + np.vecdot(tail, tail)
    doubtful = ~np.isfinite(sums)
    small = np.flatnonzero(sums < TINY_SUM)
    if small.size:
        picked = difference if small.size == rows else difference[small]
        doubtful[small] = (picked.max(axis=1) != 0) | (picked.min(axis=1) != 0)
    if doubtful.any():
        again = left.reshape(rows, -1)[doubtful].astype(np.float64)
        again -= right.reshape(rows, -1)[doubtful]
        sums[doubtful] = np.vecdot(again, again)
    return sums


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
