"""Do the committed boxes make up the model's state, and which rank opens which of them?

A commitment claims names, shapes, dtypes and offsets. Before anything is opened, the claims of all
ranks together have to be a state of the benchmark's form: every element covered exactly once, where
boxes that several ranks hold alike (replicas) count as one. Replicas are opened once. Where ranks
hold the same box with different bits, every version is opened and has to pass on its own, so that no
rank can hide a wrong state behind a right one.
"""

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import Code, SubmissionError
from harness.protocol.messages import Commitment, Piece
from harness.protocol.text import quoted
from harness.tensors.boxes import Box, State, StoredPiece, TensorSpec
from harness.tensors.shards import DTYPES

_PRIME = 2**61 - 1
_SHOWN = 5
_ITEMSIZES = dict(DTYPES.values())


@dataclass(frozen=True)
class Source:
    """Piece `index` of the commitment of rank `rank`."""

    rank: int
    index: int


@dataclass(frozen=True)
class OpeningPlan:
    """Who opens what, and how the opened pieces make up states.

    Attributes:
        orders: for each rank, the indices of its commitment that it has to open, ascending.
        versions: at least one; for each, tensor name -> the pieces that cover it.
    """

    orders: tuple[tuple[int, ...], ...]
    versions: tuple[Mapping[str, tuple[Source, ...]], ...]


def plan_opening(
    commitments: Sequence[Commitment], layout: Mapping[str, TensorSpec]
) -> OpeningPlan:
    """Check the form of the committed state and share out its opening.

    Args:
        commitments: one per rank, in order of rank.
        layout: the tensors of the benchmark's final state.

    Returns:
        The plan. Version 0 has the first content of every box in order of rank; version j has the
        j-th different content where there is one, else the first.

    Raises:
        SubmissionError(STATE_INVALID): names, shapes, dtypes or coverage are not the layout's. The
            message names the worst problems, at most five.
    """
    elements = sum(math.prod(spec.shape) for spec in layout.values())
    if elements and not any(commitment.pieces for commitment in commitments):
        raise SubmissionError(
            Code.STATE_INVALID,
            "no rank returned a final_state: return the model's state dict on rank 0, or every rank its "
            "shards as DTensors",
        )
    problems = _Problems()
    tensors = _collect(commitments, layout, problems)
    for name, spec in layout.items():
        problem = _coverage_problem(spec.shape, tensors[name].keys())
        if problem is not None:
            problems.add(name, problem)
    problems.raise_if_any(len(layout))
    orders, chosen = _share_out(tensors, layout, len(commitments))
    return OpeningPlan(orders, _versions(chosen))


def assemble(plan: OpeningPlan, opened: Sequence[Mapping[int, StoredPiece]]) -> tuple[State, ...]:
    """The states that the opened pieces make up, one per version.

    Args:
        opened: for each rank, index in its commitment -> piece; everything in `plan.orders`.
    """
    return tuple(
        {
            name: tuple(opened[source.rank][source.index] for source in sources)
            for name, sources in version.items()
        }
        for version in plan.versions
    )


# --- the claims, one by one ---------------------------------------------------------------------

# Who holds a box: for each different content, by its digest, the ranks that committed to it.
_Contents = dict[str, list[Source]]
_Tensors = dict[str, dict[Box, _Contents]]


@dataclass
class _Problem:
    """`severity` 0 is the worst; `text` says what is wrong, after the tensor's name."""

    severity: int
    text: str
    advice: str


@dataclass
class _Problems:
    """At most one problem a tensor: the first that is found explains those that follow from it."""

    found: dict[str, _Problem] = field(default_factory=dict)

    def add(self, name: str, problem: _Problem) -> None:
        self.found.setdefault(name, problem)

    def raise_if_any(self, tensors: int) -> None:
        if not self.found:
            return
        worst = sorted(self.found.items(), key=lambda item: item[1].severity)[:_SHOWN]
        # Each piece of advice once, in the order of the problems.
        advice = " ".join(dict.fromkeys(problem.advice for _, problem in worst))
        listed = "; ".join(f"{quoted(name)} {problem.text}" for name, problem in worst)
        more = len(self.found) - len(worst)
        raise SubmissionError(
            Code.STATE_INVALID,
            f"final_state is not a state of this model ({tensors} tensors): {listed}"
            + (f"; and {more} more" if more else "")
            + f". {advice}",
        )


def _collect(
    commitments: Sequence[Commitment], layout: Mapping[str, TensorSpec], problems: _Problems
) -> _Tensors:
    """All boxes of all tensors with who holds which content; boxes without elements are left out."""
    tensors: _Tensors = {name: {} for name in layout}
    for rank, commitment in enumerate(commitments):
        for index, piece in enumerate(commitment.pieces):
            spec = layout.get(piece.name)
            problem = _piece_problem(piece, spec)
            if problem is not None:
                problems.add(piece.name, problem)
                continue
            box = Box(piece.offset, piece.shape)
            if not box.numel:
                continue
            contents = tensors[piece.name].setdefault(box, {})
            if any(held[-1].rank == rank for held in contents.values()):
                problems.add(piece.name, _twice(rank))
                continue
            contents.setdefault(piece.digest, []).append(Source(rank, index))
    return tensors


def _piece_problem(piece: Piece, spec: TensorSpec | None) -> _Problem | None:
    if spec is None:
        return _Problem(
            1, "is not in the model", "Names must be those of the given model's state_dict()."
        )
    if piece.tensor_shape != spec.shape:
        return _Problem(
            2,
            f"has shape {piece.tensor_shape} instead of {spec.shape}",
            "Return sharded tensors as DTensors, or gather them.",
        )
    if piece.dtype != spec.dtype:
        return _dtype_problem(piece.dtype, spec.dtype)
    if not len(piece.offset) == len(piece.shape) == len(spec.shape) or any(
        low + size > whole
        for low, size, whole in zip(piece.offset, piece.shape, spec.shape, strict=True)
    ):
        return _Problem(
            4,
            f"has a shard of shape {piece.shape} at {piece.offset}, outside {spec.shape}",
            "The shard's placements don't fit its tensor.",
        )
    return None


def _dtype_problem(dtype: str, expected: str) -> _Problem:
    advice = f"Return the parameters as {expected}."
    if expected == "float32" and dtype in ("bfloat16", "float16"):
        advice = (
            f"The master parameters are float32: compute in {dtype} under autocast or a "
            "mixed-precision policy, and return the masters. A cast of them rounds most of an "
            "update away."
        )
    return _Problem(3, f"is {quoted(dtype)[1:-1]} instead of {expected}", advice)


def _twice(rank: int) -> _Problem:
    return _Problem(
        5,
        f"is there twice on rank {rank}",
        "Two names in final_state stand for the same parameter: return one of them.",
    )


# --- the claims together ------------------------------------------------------------------------


def _coverage_problem(shape: tuple[int, ...], boxes: Iterable[Box]) -> _Problem | None:
    boxes = tuple(boxes)
    volume = math.prod(shape)
    covered = sum(box.numel for box in boxes)
    if volume and not boxes:
        return _Problem(0, "is missing", "Return every tensor of the given model's state_dict().")
    if covered < volume:
        return _Problem(
            6,
            f"is incomplete: {covered} of {volume} elements",
            "Every rank must return its own shards, or rank 0 the whole tensors.",
        )
    if covered > volume or not _covers_once(shape, boxes):
        return _Problem(
            7,
            f"has overlapping shards: {covered} elements for {volume}",
            "Shards must be either equal or disjoint: all ranks must shard a tensor alike.",
        )
    return None


def _covers_once(shape: tuple[int, ...], boxes: Sequence[Box]) -> bool:
    """Whether every element of `shape` lies in exactly one box. Boxes lie inside `shape`.

    Comparing boxes in pairs is quadratic, and a submission chooses how many there are. Instead, cut
    each dimension where a box begins or ends, give every segment a random weight modulo a prime,
    and a cell the product of its segments' weights. The weight of a box is then a product of
    differences of prefix sums, and the boxes' weights add up to that of the whole tensor if every
    cell is covered once. If not, the difference is a non-zero polynomial in the random weights, of
    degree len(shape), which is zero with probability at most len(shape) / 2^61 (Schwartz-Zippel).
    """
    whole = 1
    prefixes = []
    for dimension, extent in enumerate(shape):
        cuts = {0, extent}
        for box in boxes:
            cuts.add(box.offset[dimension])
            cuts.add(box.offset[dimension] + box.shape[dimension])
        total = 0
        prefix = {}
        for cut in sorted(cuts):
            prefix[cut] = total
            total += secrets.randbelow(_PRIME)
        prefixes.append(prefix)
        whole = whole * prefix[extent] % _PRIME
    weights = 0
    for box in boxes:
        weight = 1
        for prefix, low, size in zip(prefixes, box.offset, box.shape, strict=True):
            weight = weight * (prefix[low + size] - prefix[low]) % _PRIME
        weights += weight
    return weights % _PRIME == whole


# --- who opens what -----------------------------------------------------------------------------

# For each tensor and box, who opens each of its different contents, in order of rank.
_Chosen = dict[str, list[list[Source]]]


def _share_out(
    tensors: _Tensors, layout: Mapping[str, TensorSpec], ranks: int
) -> tuple[tuple[tuple[int, ...], ...], _Chosen]:
    """Every content is opened by one of its holders, so that ranks write about equally many bytes.

    What only one rank holds is its own; then the largest replicas go to the least loaded holders.
    """
    load = [0] * ranks
    orders: list[list[int]] = [[] for _ in range(ranks)]
    chosen: _Chosen = {name: [] for name in tensors}
    work: list[tuple[int, list[Source], list[Source], int]] = []
    for name, boxes in tensors.items():
        for box in sorted(boxes, key=lambda box: box.offset):
            contents = list(boxes[box].values())
            openers = [holders[0] for holders in contents]
            chosen[name].append(openers)
            nbytes = box.numel * _ITEMSIZES[layout[name].dtype]
            work.extend((nbytes, held, openers, slot) for slot, held in enumerate(contents))
    for nbytes, holders, openers, slot in sorted(
        work, key=lambda item: (len(item[1]) > 1, -item[0])
    ):
        source = min(holders, key=lambda holder: (load[holder.rank], holder.rank))
        load[source.rank] += nbytes
        orders[source.rank].append(source.index)
        openers[slot] = source
    return tuple(tuple(sorted(order)) for order in orders), chosen


def _versions(chosen: _Chosen) -> tuple[dict[str, tuple[Source, ...]], ...]:
    count = max((len(openers) for boxes in chosen.values() for openers in boxes), default=1)
    return tuple(
        {
            name: tuple(openers[version if version < len(openers) else 0] for openers in boxes)
            for name, boxes in chosen.items()
        }
        for version in range(count)
    )
