"""How far a submission's update is from the reference's, tensor by tensor and slice by slice.

With w0 the initial, wr the reference's and ws the submitted weights:
    update error  ‖ws − wr‖ / ‖wr − w0‖        norm ratio  ‖ws − w0‖ / ‖wr − w0‖
The states stay in their files. The three may be cut into boxes in three different ways, so the work is
done on the intersections, in blocks small enough for the cache, by a few threads. Sums over a block are
float32 dot products over short runs (numpy's fastest way to read memory once); everything above is
float64, added in a fixed order, so a comparison gives the same numbers with any number of threads.
"""

import math
import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import Code, JudgeError
from harness.verify.pieces import Box, State, StoredPiece, TensorKind, TensorSpec
from harness.verify.states import as_array, is_floating

BLOCK_ELEMENTS = 1 << 18
JOB_ELEMENTS = 1 << 22
# Elements of one float32 dot product: short enough for its rounding not to matter, and below the size
# at which BLAS starts threads of its own.
RUN_ELEMENTS = 1 << 12
# A float32 sum of squares below this may have lost squares that are not normal numbers.
TINY_SUM = 1e-28
# A slice that moved less than this part of the tensor's rms slice update is judged as if it had moved
# so far: rounding noise of a row that hardly occurred must not look like an error.
SLICE_FLOOR = 0.01

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SliceComparison:
    """One expert or embedding row.

    Attributes:
        index: along the tensor's first dimension.
        update_error: against the reference's update of this slice, floored at SLICE_FLOOR.
        norm_ratio: against the same floored norm.
    """

    index: int
    update_error: float
    norm_ratio: float


@dataclass(frozen=True)
class TensorComparison:
    """One tensor. Errors are inf where the submission has non-finite elements.

    Attributes:
        name, kind, numel: of the tensor.
        moved: whether the reference's update is not zero. If it is zero, update_error is 0.0 for an
            equal submission and inf for any other, and norm_ratio 1.0 or inf.
        update_error, norm_ratio: see the module.
        nonfinite: NaN and infinite elements of the submission.
        exact: the tensor is not floating: it has to be equal to the reference's, bit by bit.
        different: for an exact tensor, how many elements differ.
        worst_slice: the slice with the largest update error, or None for a PLAIN tensor.
        slice_errors: float64 [shape[0]], the update error of every slice; empty for a PLAIN tensor.
    """

    name: str
    kind: TensorKind
    numel: int
    moved: bool
    update_error: float
    norm_ratio: float
    nonfinite: int = 0
    exact: bool = False
    different: int = 0
    worst_slice: SliceComparison | None = None
    slice_errors: Floats = field(
        default_factory=lambda: np.empty(0), repr=False, compare=False
    )


@dataclass(frozen=True)
class StateComparison:
    """A whole state. `update_error` and `norm_ratio` are over all floating elements."""

    tensors: tuple[TensorComparison, ...]
    update_error: float
    norm_ratio: float

    @property
    def nonfinite(self) -> int:
        return sum(tensor.nonfinite for tensor in self.tensors)


def compare_states(
    initial: State,
    reference: State,
    submitted: State,
    layout: Mapping[str, TensorSpec],
    threads: int = 2,
) -> StateComparison:
    """Read all three states once. Extra memory is a few MiB a thread, whatever their size.

    Args:
        initial, reference, submitted: each covers every element of every tensor of `layout` once.
        layout: the benchmark's tensors.
        threads: that read and compute.

    Raises:
        JudgeError(REFERENCE_FAILED): the initial or the reference weights are not finite, or the
            reference did not move at all: the benchmark cannot judge anything.
        JudgeError(INTERNAL): the states do not cover the layout (form checks come before this).
    """
    totals = {name: _Totals.empty(spec) for name, spec in layout.items()}
    scratch = _Scratch()
    jobs = (
        job
        for name, spec in layout.items()
        for job in _jobs(name, spec, initial[name], reference[name], submitted[name])
    )
    with ThreadPoolExecutor(threads) as pool:
        for job, part in _in_order(pool, lambda job: _run(job, scratch), jobs, 8 * threads):
            totals[job.name].add(job, part)
    for name, spec in layout.items():
        if totals[name].covered != math.prod(spec.shape):
            raise JudgeError(Code.INTERNAL, f"{name}: the states compared do not cover the tensor")
    return _summary(layout, totals)


# --- the work: intersections of boxes, cut into jobs --------------------------------------------


@dataclass(frozen=True)
class _Job:
    """The same box of one tensor in the three states: views of the files' memory."""

    name: str
    views: tuple[Array, Array, Array]  # initial, reference, submitted
    dtypes: tuple[str, str, str]
    first: int  # index of the box's first slice
    slices: int  # number of slices whose sums are kept apart; 1 for a PLAIN tensor


@dataclass(frozen=True)
class _Part:
    """Sums over one job: float64 [slices, 3] of |ws−wr|², |wr−w0|², |ws−w0|², and counts."""

    sums: Floats
    nonfinite: int
    different: int


@dataclass
class _Totals:
    """What the jobs of one tensor add up to."""

    sums: Floats
    nonfinite: int = 0
    different: int = 0
    covered: int = 0

    @classmethod
    def empty(cls, spec: TensorSpec) -> "_Totals":
        sliced = spec.kind is not TensorKind.PLAIN and is_floating(spec.dtype)
        return cls(np.zeros((spec.shape[0] if sliced else 1, 3)))

    def add(self, job: _Job, part: _Part) -> None:
        self.sums[job.first : job.first + job.slices] += part.sums
        self.nonfinite += part.nonfinite
        self.different += part.different
        self.covered += job.views[0].size


def _jobs(
    name: str,
    spec: TensorSpec,
    initial: Sequence[StoredPiece],
    reference: Sequence[StoredPiece],
    submitted: Sequence[StoredPiece],
) -> Iterator[_Job]:
    """Cut one tensor where any of the three states is cut, and then into pieces of work."""
    sliced = spec.kind is not TensorKind.PLAIN and is_floating(spec.dtype)
    for w0 in initial:
        for wr in reference:
            trusted = w0.box.intersect(wr.box)
            if trusted is None:
                continue
            for ws in submitted:
                common = trusted.intersect(ws.box)
                if common is None:
                    continue
                pieces = (w0, wr, ws)
                arrays = [_part_of(piece, common) for piece in pieces]
                for tile in _tiles(arrays[0].shape, JOB_ELEMENTS):
                    views = (arrays[0][tile], arrays[1][tile], arrays[2][tile])
                    yield _Job(
                        name,
                        views,
                        (w0.dtype, wr.dtype, ws.dtype),
                        common.offset[0] + tile[0].start if sliced else 0,
                        views[0].shape[0] if sliced else 1,
                    )


def _part_of(piece: StoredPiece, box: Box) -> Array:
    """The elements of `box`, a part of the piece's own box, with at least one dimension."""
    array = as_array(piece)
    if not box.shape:
        return array.reshape(1)
    index = tuple(
        slice(low - start, low - start + size)
        for low, start, size in zip(box.offset, piece.box.offset, box.shape, strict=True)
    )
    return array[index]


def _tiles(shape: tuple[int, ...], limit: int) -> Iterator[tuple[slice, ...]]:
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
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            yield (*fixed, slice(low, high), *rest)


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[_Job], _Part],
    jobs: Iterable[_Job],
    ahead: int,
) -> Iterator[tuple[_Job, _Part]]:
    """Results in the order of the jobs, with never more than `ahead` of them in memory."""
    waiting: deque[tuple[_Job, Future[_Part]]] = deque()
    for job in jobs:
        waiting.append((job, pool.submit(work, job)))
        if len(waiting) >= ahead:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()


# --- one job, on a thread --------------------------------------------------------------------


class _Scratch(threading.local):
    """Buffers of one block, one set a thread, made on first use."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, type], Array] = {}

    def get(self, use: str, dtype: type, shape: tuple[int, ...]) -> Array:
        key = (use, dtype)
        if key not in self._buffers:
            self._buffers[key] = np.empty(BLOCK_ELEMENTS, dtype)
        return self._buffers[key][: math.prod(shape)].reshape(shape)


def _run(job: _Job, scratch: _Scratch) -> _Part:
    """Sums over one job, block by block. Infinities and NaN are counted, not warned about."""
    sums = np.zeros((job.slices, 3))
    nonfinite = different = 0
    exact = not is_floating(job.dtypes[1])
    with np.errstate(all="ignore"):
        for tile in _tiles(job.views[0].shape, BLOCK_ELEMENTS):
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
    return _Part(sums, nonfinite, different)


def _block_sums(
    job: _Job, block: Sequence[Array], rows: int, scratch: _Scratch
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


def _widened(part: Array, name: str, use: str, dtype: type, scratch: _Scratch) -> Array:
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
        if isinstance(mapping, np.ndarray):
            mapping = mapping.base
        else:
            mapping = mapping.obj
    if not isinstance(mapping, mmap.mmap):
        return
    whole = np.frombuffer(mapping, np.uint8)
    if whole.flags.writeable:
        return
    low, high = (bound - whole.ctypes.data for bound in np.lib.array_utils.byte_bounds(view))
    low -= low % mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, low, high - low)


# --- from sums to figures ----------------------------------------------------------------------


def _summary(layout: Mapping[str, TensorSpec], totals: Mapping[str, _Totals]) -> StateComparison:
    floating = [totals[name].sums for name, spec in layout.items() if is_floating(spec.dtype)]
    difference, reference, submitted = np.sqrt(
        sum((sums.sum(axis=0) for sums in floating), start=np.zeros(3))
    )
    if not reference > 0:
        raise JudgeError(
            Code.REFERENCE_FAILED,
            "the reference's training changed no weight at all: nothing can be judged against it",
        )
    return StateComparison(
        tuple(_tensor(name, spec, totals[name]) for name, spec in layout.items()),
        float(difference / reference),
        float(submitted / reference),
    )


def _tensor(name: str, spec: TensorSpec, totals: _Totals) -> TensorComparison:
    numel = math.prod(spec.shape)
    if not is_floating(spec.dtype):
        equal = totals.different == 0
        error = 0.0 if equal else math.inf
        return TensorComparison(
            name, spec.kind, numel, False, error, 1.0 + error, 0, True, totals.different
        )
    difference, reference, submitted = (float(x) for x in np.sqrt(totals.sums.sum(axis=0)))
    if reference > 0:
        error, ratio = difference / reference, submitted / reference
    else:
        error = 0.0 if difference == 0 else math.inf
        ratio = 1.0 + error
    worst: SliceComparison | None = None
    errors = np.empty(0)
    if spec.kind is not TensorKind.PLAIN and numel:
        errors, ratios = _slices(totals.sums)
        index = int(errors.argmax())
        worst = SliceComparison(index, float(errors[index]), float(ratios[index]))
    return TensorComparison(
        name,
        spec.kind,
        numel,
        reference > 0,
        error,
        ratio,
        totals.nonfinite,
        worst_slice=worst,
        slice_errors=errors,
    )


def _slices(sums: Floats) -> tuple[Floats, Floats]:
    """Update error and norm ratio of every slice, float64 [slices] each."""
    difference, reference, submitted = np.sqrt(sums).T
    floor = SLICE_FLOOR * math.sqrt(float(np.square(reference).mean()))
    if floor == 0:
        errors = np.where(difference == 0, 0.0, math.inf)
        return errors, 1.0 + errors
    base = np.maximum(reference, floor)
    return difference / base, submitted / base
