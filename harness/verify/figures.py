"""From sums to figures: update errors and norm ratios of a state, its tensors, and their slices.

With w0 the initial, wr the reference's and ws the submitted weights, and a the part of a weight that decay
alone would leave (`verify/decay.py`; 1 without weight decay):
    update error  ‖ws − wr‖ / ‖wr − a·w0‖      norm ratio  ‖ws − a·w0‖ / ‖wr − a·w0‖
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from harness.errors import Code, JudgeError
from harness.tensors.boxes import TensorKind, TensorSpec
from harness.tensors.stored import is_floating
from harness.verify.sums import (
    COLUMNS,
    DIFFERENCE,
    INITIAL,
    REFERENCE,
    REFERENCE_IN_ALL,
    SUBMITTED,
    SUBMITTED_IN_ALL,
    Chunk,
    Floats,
    Sums,
)

Counts = npt.NDArray[np.int64]

# A slice that moved less than this part of the tensor's rms slice update is judged as if it had
# moved so far: a relative error of what hardly moved is noise.
SLICE_FLOOR = 1.0
# One near tie of the router that falls the other way, which honest kernels do now and then, changes
# most of the update of a token that occurred once. Rows of tokens that occurred less often than this
# are judged together with those that occurred about as often (docs/noise.md).
OFTEN = 64
# Below float32 an update can be smaller than the spacing of the numbers that it is added to, so only
# in these dtypes does a slice that did not change say that it was not trained.
WIDE = ("float32", "float64")
# What SLICE_FLOOR cannot see: a slice that the submission did not train, although the reference moved it
# by more than this part of the rms. An expert that got one token by a near tie may get none in another
# honest run; a token of the data is there in all of them.
UNTOUCHED_FLOOR = {TensorKind.EXPERTS: 0.1, TensorKind.EMBEDDING: 0.01}
# Trained is what moved by this part of the reference's update, in its direction: (ws − a·w0)·u / ‖u‖² with
# u = wr − a·w0. Near ties turn the update of a token that occurred once, but the worst of thousands of
# honest rows still has five times as much (docs/noise.md). A row that is nudged, or moved somewhere
# else, has none.
LEAST_PROJECTION = 0.1
# Decay alone leaves a·w0 only up to the rounding of every step, which differs between kernels. A gradient
# that moved less than this part of the weights is judged as if it had moved so far. Below it are
# tensors whose gradient is zero; above it, by far, is all that training does.
ROUNDING = {"float32": 1e-6, "float64": 1e-14, "float16": 5e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class SliceComparison:
    """One expert, one embedding row, or the rows of tokens that occurred about equally often.

    Attributes:
        index: along the tensor's first dimension; of several rows the one that differs most.
        rows: how many there are.
        update_error: against the reference's update of this slice, floored at SLICE_FLOOR.
        norm_ratio: against the same floored norm.
    """

    index: int
    rows: int
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
        slice_errors: float64 [shape[0]], the update error of every slice, rows that are judged
            together having the same; empty for a PLAIN tensor.
        untouched_slices: those that did not move at all, though the reference's did.
        turned_slices: those that moved, but not as the reference's (UNTOUCHED_FLOOR, LEAST_PROJECTION).
        trained_slices: how many the reference has trained.
        least_projection: of these; infinite where there is none.
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
    slice_errors: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    untouched_slices: tuple[int, ...] = ()
    turned_slices: tuple[int, ...] = ()
    trained_slices: int = 0
    least_projection: float = math.inf


@dataclass(frozen=True)
class StateComparison:
    """A whole state. `update_error` and `norm_ratio` are over all floating elements."""

    tensors: tuple[TensorComparison, ...]
    update_error: float
    norm_ratio: float

    @property
    def nonfinite(self) -> int:
        return sum(tensor.nonfinite for tensor in self.tensors)


@dataclass
class Totals:
    """What the chunks of one tensor add up to."""

    sums: Floats
    nonfinite: int = 0
    different: int = 0

    @classmethod
    def empty(cls, spec: TensorSpec) -> "Totals":
        sliced = spec.kind is not TensorKind.PLAIN and is_floating(spec.dtype)
        return cls(np.zeros((spec.shape[0] if sliced else 1, COLUMNS)))

    def add(self, chunk: Chunk, sums: Sums) -> None:
        self.sums[chunk.first : chunk.first + chunk.slices] += sums.sums
        self.nonfinite += sums.nonfinite
        self.different += sums.different


def summary(
    layout: Mapping[str, TensorSpec],
    totals: Mapping[str, Totals],
    occurrences: Counts | None,
) -> StateComparison:
    """The figures of a whole state. Raises JudgeError(REFERENCE_FAILED): the reference changed nothing."""
    floating = [totals[name].sums for name, spec in layout.items() if is_floating(spec.dtype)]
    norms = np.sqrt(sum((sums.sum(axis=0) for sums in floating), start=np.zeros(COLUMNS)))
    if not norms[REFERENCE] > 0:
        raise JudgeError(
            Code.REFERENCE_FAILED,
            "the reference's training changed no weight at all: nothing can be judged against it",
        )
    return StateComparison(
        tuple(_tensor(name, spec, totals[name], occurrences) for name, spec in layout.items()),
        float(norms[DIFFERENCE] / norms[REFERENCE]),
        float(norms[SUBMITTED] / norms[REFERENCE]),
    )


def _tensor(
    name: str, spec: TensorSpec, totals: Totals, occurrences: Counts | None
) -> TensorComparison:
    numel = math.prod(spec.shape)
    if not is_floating(spec.dtype):
        equal = totals.different == 0
        error = 0.0 if equal else math.inf
        return TensorComparison(
            name, spec.kind, numel, False, error, 1.0 + error, 0, True, totals.different
        )
    floor = ROUNDING[spec.dtype]
    whole = totals.sums.sum(axis=0, keepdims=True)
    smallest = floor * np.sqrt(whole[:, INITIAL])
    (error,), (ratio,) = (x.tolist() for x in _errors(whole, smallest))
    if (reference := math.sqrt(whole[0, REFERENCE])) < smallest[0]:
        ratio += 1 - reference / float(smallest[0])  # of two that hardly move none is too short
    worst: SliceComparison | None = None
    errors = np.empty(0)
    trained = _Trained()
    if spec.kind is not TensorKind.PLAIN and numel:
        embedding = spec.kind is TensorKind.EMBEDDING
        groups = _groups(len(totals.sums), occurrences if embedding else None)
        errors, worst = _slices(totals.sums, groups, floor)
        if spec.dtype in WIDE:
            trained = _trained(totals.sums, UNTOUCHED_FLOOR[spec.kind], floor)
    return TensorComparison(
        name,
        spec.kind,
        numel,
        bool(whole[0, REFERENCE_IN_ALL] > 0),
        error,
        ratio,
        totals.nonfinite,
        worst_slice=worst,
        slice_errors=errors,
        untouched_slices=trained.untouched,
        turned_slices=trained.turned,
        trained_slices=trained.count,
        least_projection=trained.least,
    )


def _groups(slices: int, occurrences: Counts | None) -> Counts:
    """int64 [slices]: slices with the same number are judged together.

    A row is on its own if its token occurred OFTEN or never; all others share a group with those
    whose counts lie between the same powers of two.
    """
    alone = np.arange(slices)
    if occurrences is None:
        return alone
    counts = np.zeros(slices, np.int64)
    counts[: len(occurrences)] = occurrences[:slices]
    octave = np.frexp(counts)[1]  # 1: once, 2: two or three times, 3: four to seven times, ...
    return np.where((counts > 0) & (counts < OFTEN), slices + octave, alone)


def _slices(sums: Floats, groups: Counts, rounding: float) -> tuple[Floats, SliceComparison]:
    """Update error of every slice, float64 [slices], and the worst slice."""
    members, place, rows = np.unique(groups, return_inverse=True, return_counts=True)
    pooled = np.zeros((len(members), COLUMNS))
    np.add.at(pooled, place, sums)
    floor = SLICE_FLOOR * _rms(np.sqrt(sums[:, REFERENCE]))
    errors, ratios = _errors(pooled, np.maximum(floor, rounding * np.sqrt(pooled[:, INITIAL])))
    worst = int(errors.argmax())
    index = int(np.where(place == worst, sums[:, DIFFERENCE], -1.0).argmax())
    found = SliceComparison(index, int(rows[worst]), float(errors[worst]), float(ratios[worst]))
    return errors[place], found


def _errors(sums: Floats, floor: Floats) -> tuple[Floats, Floats]:
    """Update errors and norm ratios, float64 [rows] each, against norms of at least `floor`."""
    norms = np.sqrt(sums)
    base = np.maximum(norms[:, REFERENCE], floor)
    still = base == 0
    base[still] = 1.0
    errors = norms[:, DIFFERENCE] / base
    ratios = norms[:, SUBMITTED] / base
    errors[still] = np.where(norms[still, DIFFERENCE] == 0, 0.0, math.inf)
    ratios[still] = 1.0 + errors[still]
    return errors, ratios


@dataclass(frozen=True)
class _Trained:
    """Of a tensor's slices what `TensorComparison` says of them."""

    untouched: tuple[int, ...] = ()
    turned: tuple[int, ...] = ()
    count: int = 0
    least: float = math.inf


def _trained(sums: Floats, floor: float, rounding: float) -> _Trained:
    """Slices that stand still, though they should have moved or decayed, and those that are not trained."""
    in_all = np.sqrt(sums[:, REFERENCE_IN_ALL])
    stuck = (sums[:, SUBMITTED_IN_ALL] == 0) & (in_all > floor * _rms(in_all))
    length = np.sqrt(sums[:, REFERENCE])
    trained = length > np.maximum(floor * _rms(length), rounding * np.sqrt(sums[:, INITIAL]))
    projections = np.full(len(sums), math.inf)
    with np.errstate(invalid="ignore"):  # what is not finite is found elsewhere
        # |s − r|² = |s|² + |r|² − 2 s·r
        products = (sums[:, SUBMITTED] + sums[:, REFERENCE] - sums[:, DIFFERENCE]) / 2
    np.divide(products, sums[:, REFERENCE], out=projections, where=trained)
    still = stuck | (trained & (sums[:, SUBMITTED_IN_ALL] == 0))
    turned = (projections < LEAST_PROJECTION) & ~still
    return _Trained(
        untouched=tuple(np.flatnonzero(still).tolist()),
        turned=tuple(np.flatnonzero(turned).tolist()),
        count=int(np.count_nonzero(trained)),
        least=float(projections.min(initial=math.inf)),
    )


def _rms(norms: Floats) -> float:
    return math.sqrt(float(np.square(norms).mean()))
