"""What a rank that ran under the profiler says of it: figures for its author, which decide nothing."""

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from harness.protocol.messages import Name, Strict

#: Of one rank's figures as JSON.
MAX_PROFILE_BYTES = 64 * 1024
MAX_OPERATIONS = 10
TRACE_FILE = "rank{rank}.trace.json"
PROFILE_FILE = "rank{rank}.json"

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Span = tuple[float, float]


class Operation(Strict, frozen=True):
    """One kind of operation: `seconds` without those of the operations that it calls."""

    name: Name
    calls: Annotated[int, Meta(ge=0, lt=2**48)]
    seconds: Seconds


class RankProfile(Strict, frozen=True):
    """Where one rank's run went, in seconds. The parts add up to `seconds`.

    Attributes:
        commitment: hashing the final state.
        data: in the iterator.
        optimizer: in the steps of torch's optimizers.
        compute: operations (on a GPU kernels) in what is left.
        communication: collectives, while nothing of the above was done.
        other: Python, and waiting for what no profiler sees.
        operations: the dearest, the dearest first.
    """

    seconds: Seconds
    commitment: Seconds
    data: Seconds
    optimizer: Seconds
    compute: Seconds
    communication: Seconds
    other: Seconds
    operations: Annotated[tuple[Operation, ...], Meta(max_length=MAX_OPERATIONS)]


PARTS = ("commitment", "data", "optimizer", "compute", "communication")


def split(whole: Span, spans: dict[str, Iterable[Span]]) -> dict[str, float]:
    """Give each moment of `whole` to the first of PARTS that it lies in; the rest is `other`.

    Args:
        whole: begin and end, in any unit.
        spans: of each part; they may overlap.

    Returns:
        Lengths of the parts and of `other`, which add up to that of `whole`.
    """
    lengths: dict[str, float] = {}
    taken: list[Span] = []
    begin, end = whole
    for part in PARTS:
        clipped = [(max(a, begin), min(b, end)) for a, b in spans.get(part, ())]
        joined = _union([*taken, *(span for span in clipped if span[0] < span[1])])
        lengths[part] = _length(joined) - _length(taken)
        taken = joined
    lengths["other"] = (end - begin) - _length(taken)
    return lengths


def _union(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def _length(spans: Iterable[Span]) -> float:
    return sum(end - begin for begin, end in spans)
