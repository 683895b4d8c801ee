"""How far a submission's update is from the reference's, tensor by tensor and slice by slice.

The states stay in their files, cut into boxes in three different ways. A tensor is read in blocks of
its rows (`verify/sums.py`), by a few threads. Their sums are added in a fixed order, so a comparison
gives the same numbers with any number of threads and any cuts; `verify/figures.py` makes them figures.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from harness.tensors.boxes import Box, State, StoredPiece, TensorKind, TensorSpec
from harness.tensors.stored import as_array, is_floating
from harness.verify.figures import Counts, StateComparison, Totals, summary
from harness.verify.sums import CHUNK_ELEMENTS, Chunk, PieceArray, Scratch, Sums, cut, run


def compare_states(
    initial: State,
    reference: State,
    submitted: State,
    layout: Mapping[str, TensorSpec],
    threads: int = 2,
    occurrences: Counts | None = None,
    left: float = 1.0,
) -> StateComparison:
    """Read all three states once. Extra memory is a few MiB a thread, whatever their size.

    Args:
        initial, reference, submitted: each covers every element of every tensor of `layout` once.
        layout: the benchmark's tensors.
        threads: that read and compute.
        occurrences: int64 [tokens], how often each token was trained on; None: every embedding row
            is judged on its own.
        left: part of the initial weights that decay alone would leave, from `decay.decay_path`.

    Raises:
        JudgeError(REFERENCE_FAILED): the initial or the reference weights are not finite, or the
            reference did not move at all: the benchmark cannot judge anything.
        JudgeError(INTERNAL): the states do not cover the layout (form checks come before this).
    """
    totals = {name: Totals.empty(spec) for name, spec in layout.items()}
    scratch = Scratch()
    chunks = (
        chunk
        for name, spec in layout.items()
        for chunk in _chunks(
            name, spec, [state[name] for state in (initial, reference, submitted)], left
        )
    )
    with ThreadPoolExecutor(threads) as pool:
        for chunk, sums in _in_order(pool, lambda chunk: run(chunk, scratch), chunks, 8 * threads):
            totals[chunk.name].add(chunk, sums)
    return summary(layout, totals, occurrences)


# --- the work, cut into chunks --------------------------------------------------------------------


def _chunks(
    name: str, spec: TensorSpec, states: Sequence[Sequence[StoredPiece]], left: float
) -> Iterator[Chunk]:
    """Cut one tensor into pieces of work."""
    if not math.prod(spec.shape):
        return
    initial, reference, submitted = (_Pieces(pieces) for pieces in states)
    sliced = spec.kind is not TensorKind.PLAIN and is_floating(spec.dtype)
    shape = spec.shape or (1,)
    for box in cut(Box((0,) * len(shape), shape), CHUNK_ELEMENTS):
        yield Chunk(
            name,
            box,
            (initial.touching(box), reference.touching(box), submitted.touching(box)),
            first=box.offset[0] if sliced else 0,
            slices=box.shape[0] if sliced else 1,
            left=left,
        )


class _Pieces:
    """Finds the pieces of a tensor that touch a box; a submission may cut it into very many."""

    def __init__(self, pieces: Sequence[StoredPiece]) -> None:
        self._arrays = [_as_array(piece) for piece in pieces]
        self._low = np.array([each.box.offset for each in self._arrays])
        self._high = self._low + np.array([each.box.shape for each in self._arrays])

    def touching(self, box: Box) -> list[PieceArray]:
        high = np.add(box.offset, box.shape)
        touched = ((self._low < high) & (self._high > box.offset)).all(axis=1)
        return [self._arrays[int(index)] for index in np.flatnonzero(touched)]


def _as_array(piece: StoredPiece) -> PieceArray:
    """The piece for the inner loop, which knows no scalars: they are vectors of one element."""
    box = piece.box if piece.box.shape else Box((0,), (1,))
    return PieceArray(box, piece.dtype, as_array(piece).reshape(box.shape))


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[Chunk], Sums],
    chunks: Iterable[Chunk],
    ahead: int,
) -> Iterator[tuple[Chunk, Sums]]:
    """Results in the order of the chunks, with never more than `ahead` of them in memory."""
    waiting: deque[tuple[Chunk, Future[Sums]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, pool.submit(work, chunk)))
        if len(waiting) >= ahead:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()
