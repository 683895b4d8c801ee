"""Every check of a run on both sides of its boundary: just inside is accepted without a word, just
outside gives its own finding and no other.

The states are made so that every figure can be checked on paper. Every slice is 8 numbers; its
updates are combinations of eight directions at right angles (a Hadamard matrix). The reference takes
four steps of equal length along four of them, so an error along a fifth changes no step's weight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.protocol.messages import Done
from harness.submission.strategy import Strategy
from harness.tensors.boxes import TensorKind, TensorSpec
from harness.verify.attribution import attribute, gather
from harness.verify.checks import Finding, RunEvidence, Severity, judge_run, measure_run
from harness.verify.compare import compare_states
from harness.verify.filters import Along
from harness.verify.token_losses import Group, TokenShift
from tests.build_states import whole

Array = npt.NDArray[Any]
Weights = dict[str, Array]

# Near those of the embedded benchmark.
TOLERANCES = Tolerances(
    loss=0.002,
    update_error=0.016,
    tensor_update_error=0.1,
    slice_update_error=0.08,
    norm_ratio=0.001,
    tensor_norm_ratio=0.05,
    step_weight=0.02,
    token_loss_shift=0.004,
    token_group_shift=6.0,
    matched_filter=7.0,
)
HEAD, GATE, COUNTER = "lm_head", "gate", "counter"
EXPERTS, EMBEDDING = "experts", "embed_tokens"
# How far the reference moves each slice; together 10: 81 + 1 + 9 + 9 = 10 squared.
LENGTHS = {HEAD: [9.0], GATE: [1.0], EXPERTS: [1.0] * 9, EMBEDDING: [1.0] * 9}
KINDS = {EXPERTS: TensorKind.EXPERTS, EMBEDDING: TensorKind.EMBEDDING}
FLOATING = tuple(LENGTHS)
STEPS, BATCH, SEQUENCE, LOSS = 4, 8, 16, 6.5
STRATEGY = Strategy(dp_size=2)

_PAIR = np.array([[1.0, 1.0], [1.0, -1.0]])
DIRECTIONS = np.kron(np.kron(_PAIR, _PAIR), _PAIR) / math.sqrt(8)  # eight of length 1, orthogonal
STEP_DIRECTIONS, ASIDE = DIRECTIONS[1:5], DIRECTIONS[5]


HONEST = TokenShift(0.0, (Group("the first row", 0.0),))
NOWHERE = Along("a layer is skipped", 0.0)


@dataclass
class Run:
    """What a submission hands in, to be spoilt by a test.

    `reach` says how far the reference moves every slice, float64 [slices] for each floating tensor.
    """

    weights: Weights
    reach: Weights
    losses: list[float | None]
    tokens: list[int | None]
    shift: TokenShift = HONEST
    along: Along = NOWHERE

    def add(self, name: str, amount: float, which: slice | int = slice(None)) -> None:
        """An error at right angles to the update, as large as `amount` of the slice's update."""
        reach = (
            self.reach[name][which, None] if isinstance(which, slice) else self.reach[name][which]
        )
        self.weights[name][which] += amount * reach * ASIDE

    def stretch(self, name: str, amount: float) -> None:
        """Move this much further than the reference (less, if negative), in its direction."""
        self.weights[name] += amount * self.reach[name][:, None] * STEP_DIRECTIONS.sum(axis=0) / 2


def step_updates(reach: Array) -> Array:
    """float64 [STEPS, slices, 8]: four steps at right angles, together `reach` long."""
    updates: Array = STEP_DIRECTIONS[:, None, :] * reach[:, None] / 2
    return updates


def judged(
    spoil: Callable[[Run, float], None],
    size: float,
    tolerances: Tolerances,
    added: dict[str, float],
) -> tuple[RunEvidence, list[Finding]]:
    """An exact copy of the reference's training, spoilt, on the way that every run takes.

    Args:
        added: how far the reference moves one slice more of each of these tensors.
    """
    reach = {
        name: np.array([*lengths, *([added[name]] if name in added else [])])
        for name, lengths in LENGTHS.items()
    }
    layout = {
        name: TensorSpec((len(reach[name]), 8), "float32", KINDS.get(name, TensorKind.PLAIN))
        for name in FLOATING
    }
    layout[COUNTER] = TensorSpec((3,), "int64")
    initial = {name: np.full(layout[name].shape, 0.5) for name in FLOATING}
    final = {name: w + step_updates(reach[name]).sum(axis=0) for name, w in initial.items()}
    world = BATCH * SEQUENCE * STEPS
    run = Run(
        {name: w.copy() for name, w in final.items()} | {COUNTER: np.array([4, 5, 6])},
        reach,
        [LOSS, LOSS],
        [world, world // 2],
    )
    spoil(run, size)
    states = [
        whole(weights, layout)
        for weights in (
            initial | {COUNTER: np.zeros(3, np.int64)},
            final | {COUNTER: np.array([4, 5, 6])},
            run.weights,
        )
    ]
    coordinates = {name: np.arange(math.prod(layout[name].shape)) for name in FLOATING}
    recorded = [step_updates(reach[name]).reshape(STEPS, -1) for name in sorted(FLOATING)]
    observed = gather(states[2], coordinates) - gather(states[0], coordinates)
    evidence = RunEvidence(
        claims=[
            Done(run=0, final_loss=loss, total_tokens=tokens)
            for loss, tokens in zip(run.losses, run.tokens, strict=True)
        ],
        strategy=STRATEGY,
        row_losses=np.full(BATCH, LOSS),
        sequence_length=SEQUENCE,
        steps=STEPS,
        comparisons=[compare_states(states[0], states[1], states[2], layout)],
        attributions=[attribute(np.concatenate(recorded, axis=1), observed)],
        shifts=[run.shift],
        alongs=[(run.along,)],
    )
    return evidence, judge_run(evidence, tolerances)


# --- how a run is spoilt: `size` is what the check then measures -----------------------------------


def loss(rank: int, sign: int) -> Callable[[Run, float], None]:
    def spoil(run: Run, size: float) -> None:
        run.losses[rank] = LOSS + sign * size

    return spoil


def everywhere_aside(run: Run, size: float) -> None:
    for name in FLOATING:
        run.add(name, size)


def gate_aside(run: Run, size: float) -> None:
    run.add(GATE, size)


def slice_aside(name: str) -> Callable[[Run, float], None]:
    return lambda run, size: run.add(name, size, which=4)


def everywhere_stretched(sign: int) -> Callable[[Run, float], None]:
    def spoil(run: Run, size: float) -> None:
        for name in FLOATING:
            run.stretch(name, sign * size)

    return spoil


def gate_stretched(sign: int) -> Callable[[Run, float], None]:
    return lambda run, size: run.stretch(GATE, sign * size)


def third_step(sign: int) -> Callable[[Run, float], None]:
    """The other three make up for its length, so that the whole is as long as it should be."""

    def spoil(run: Run, size: float) -> None:
        weights = np.full(STEPS, -sign * size / 3)
        weights[2] = sign * size
        for name in FLOATING:
            run.weights[name] += np.tensordot(weights, step_updates(run.reach[name]), 1)

    return spoil


@dataclass(frozen=True)
class Boundary:
    """One way to fail one check; `size` at its tolerance is where it begins to fail."""

    name: str
    check: str
    spoil: Callable[[Run, float], None]
    code: Code = Code.UPDATE_MISMATCH
    tensor: str | None = None  # the worst, by name


def other_losses(run: Run, size: float) -> None:
    run.shift = replace(run.shift, median=size)


def other_group(sign: int) -> Callable[[Run, float], None]:
    def spoil(run: Run, size: float) -> None:
        run.shift = replace(run.shift, groups=(Group("the last position", sign * size),))

    return spoil


def along(run: Run, size: float) -> None:
    run.along = replace(run.along, z=size)


MEASURED = [
    Boundary("loss of rank 0 too high", "loss", loss(0, 1), Code.LOSS_MISMATCH),
    Boundary("loss of rank 0 too low", "loss", loss(0, -1), Code.LOSS_MISMATCH),
    Boundary("loss of another rank", "loss", loss(1, 1), Code.LOSS_MISMATCH),
    Boundary("all a little off", "update_error", everywhere_aside),
    Boundary("one tensor off", "tensor_update_error", gate_aside, tensor=GATE),
    Boundary("one expert off", "slice_update_error", slice_aside(EXPERTS), tensor=EXPERTS),
    Boundary("one row off", "slice_update_error", slice_aside(EMBEDDING), tensor=EMBEDDING),
    Boundary("all too far", "norm_ratio", everywhere_stretched(1)),
    Boundary("all not far enough", "norm_ratio", everywhere_stretched(-1)),
    Boundary("one tensor too far", "tensor_norm_ratio", gate_stretched(1), tensor=GATE),
    Boundary("one tensor not far enough", "tensor_norm_ratio", gate_stretched(-1), tensor=GATE),
    Boundary("all tokens' losses", "token_loss_shift", other_losses),
    Boundary("a group trained less", "token_group_shift", other_group(1)),
    Boundary("a group trained more", "token_group_shift", other_group(-1)),
    Boundary("in a known direction", "matched_filter", along),
    Boundary("a step too large", "step_weight", third_step(1)),
    Boundary("a step too small", "step_weight", third_step(-1)),
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row.name)
def test_just_inside_a_tolerance_is_accepted_and_just_outside_is_rejected_for_it_alone(
    row: Boundary,
) -> None:
    allowed = getattr(TOLERANCES, row.check)
    evidence, found = judged(row.spoil, 0.99 * allowed, TOLERANCES, {})
    assert found == []
    assert getattr(measure_run(evidence), row.check) == pytest.approx(0.99 * allowed, rel=1e-3)
    _, found = judged(row.spoil, 1.01 * allowed, TOLERANCES, {})
    assert [(f.code, f.check, f.severity) for f in found] == [
        (row.code, row.check, Severity.REJECTS)
    ]
    assert found[0].measured == pytest.approx(1.01 * allowed, rel=1e-3)
    assert found[0].allowed == allowed
    assert [t.tensor for t in found[0].worst] == ([row.tensor] if row.tensor else [])
    assert all(t.measured == found[0].measured for t in found[0].worst)


def test_every_tolerance_has_a_row() -> None:
    assert {row.check for row in MEASURED} == set(Tolerances.model_fields)


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row.name)
def test_a_check_is_decided_by_its_own_tolerance(row: Boundary) -> None:
    """What is over one tolerance is accepted when that one, and no other, allows twice as much."""
    allowed = getattr(TOLERANCES, row.check)
    wider = TOLERANCES.model_copy(update={row.check: 2 * allowed})
    assert judged(row.spoil, 1.01 * allowed, wider, {})[1] == []


# --- checks without a tolerance -------------------------------------------------------------------


def not_a_number(value: float, count: int) -> Callable[[Run, float], None]:
    def spoil(run: Run, _: float) -> None:
        run.weights[HEAD][0, :count] = value
        run.shift = TokenShift(math.inf, ())  # the losses are not finite either

    return spoil


def counters_off(run: Run, size: float) -> None:
    run.weights[COUNTER][: int(size)] += 1


def left_alone(name: str) -> Callable[[Run, float], None]:
    """The last slice, as the initial weights have it; `size` says how far the reference moved it."""

    def spoil(run: Run, _: float) -> None:
        run.weights[name][-1] = 0.5

    return spoil


def test_an_exact_copy_is_accepted_without_a_word() -> None:
    evidence, found = judged(lambda run, size: None, 0.0, TOLERANCES, {})
    assert found == []
    metrics = measure_run(evidence)
    assert metrics.update_error == metrics.loss == metrics.norm_ratio == 0.0
    assert metrics.step_weight < 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [1, 3])
def test_one_element_that_is_not_finite_is_rejected_for_that_alone(
    value: float, count: int
) -> None:
    _, found = judged(not_a_number(value, count), 0.0, TOLERANCES, {})
    assert [(f.code, f.check, f.measured, f.allowed) for f in found] == [
        (Code.STATE_INVALID, "finite", count, 0.0)
    ]
    assert [(t.tensor, t.measured) for t in found[0].worst] == [(HEAD, count)]


@pytest.mark.parametrize("count", [1, 3])
def test_one_element_of_an_integer_tensor_that_differs_is_rejected_for_that_alone(
    count: int,
) -> None:
    _, found = judged(counters_off, count, TOLERANCES, {})
    assert [(f.code, f.check, f.measured, f.allowed) for f in found] == [
        (Code.UPDATE_MISMATCH, "exact", count, 0.0)
    ]
    assert [(t.tensor, t.measured) for t in found[0].worst] == [(COUNTER, count)]


# A row counts as still where the reference moved it by more than 0.01 of the rms of the rows, an
# expert by more than 0.1 of theirs. The rms of nine lengths of 1 and a small one is about 0.95.
@pytest.mark.parametrize(
    ("name", "length", "still"),
    [
        (EMBEDDING, 0.0094, False),
        (EMBEDDING, 0.0096, True),
        (EXPERTS, 0.094, False),
        (EXPERTS, 0.097, True),
    ],
)
def test_a_slice_without_any_update_is_rejected_for_that_alone(
    name: str, length: float, still: bool
) -> None:
    """The tolerance of slices is wide here: an expert left alone is over it too."""
    wide = TOLERANCES.model_copy(update={"slice_update_error": 0.2})
    _, found = judged(left_alone(name), 0.0, wide, {name: length})
    assert [(f.code, f.check, f.measured, f.allowed) for f in found] == (
        [(Code.UPDATE_MISMATCH, "still", 1, 0.0)] if still else []
    )
    if still:
        assert [(t.tensor, t.slice_index, t.measured) for t in found[0].worst] == [(name, 9, 1)]


@pytest.mark.parametrize(
    ("part", "still"), [(0.0, True), (0.099, True), (0.101, False), (1.0, False)]
)
def test_a_row_that_moved_a_tenth_of_its_way_counts_as_trained(part: float, still: bool) -> None:
    """Of a rare row, so small that no other check sees it."""

    def moved(run: Run, _: float) -> None:
        run.weights[EMBEDDING][-1] = 0.5 + part * (run.weights[EMBEDDING][-1] - 0.5)

    _, found = judged(moved, 0.0, TOLERANCES, {EMBEDDING: 0.02})
    assert [(f.code, f.check, f.measured, f.allowed) for f in found] == (
        [(Code.UPDATE_MISMATCH, "still", 1, 0.0)] if still else []
    )


WORLD = 512  # 8 rows of 16 tokens, 4 steps


@pytest.mark.parametrize(
    ("tokens", "noted"),
    [
        ([WORLD, WORLD], 0),
        ([WORLD // 2, WORLD // 2], 0),
        ([None, None], 0),
        ([WORLD - 1, WORLD], 1),
        ([WORLD, WORLD + 1], 1),
        ([WORLD // 2 - 1, WORLD // 2 + 1], 1),
        ([0, WORLD], 1),
    ],
)
def test_a_token_count_is_the_ranks_or_the_worlds_to_the_token(
    tokens: Sequence[int | None], noted: int
) -> None:
    def claim(run: Run, _: float) -> None:
        run.tokens = list(tokens)

    _, found = judged(claim, 0.0, TOLERANCES, {})
    assert [(f.code, f.check) for f in found] == [(Code.OK, "tokens")] * noted


@pytest.mark.parametrize("losses", [[None, None], [None, LOSS], [math.nan, LOSS], [LOSS, math.inf]])
def test_a_loss_that_is_missing_or_no_number_is_rejected_for_that_alone(
    losses: list[float | None],
) -> None:
    def claim(run: Run, _: float) -> None:
        run.losses = losses

    evidence, found = judged(claim, 0.0, TOLERANCES, {})
    assert [(f.code, f.check) for f in found] == [(Code.LOSS_MISMATCH, "loss")]
    assert measure_run(evidence).loss == math.inf


def test_of_two_versions_the_worst_decides_whichever_comes_first() -> None:
    good, _ = judged(lambda run, size: None, 0.0, TOLERANCES, {})
    bad, alone = judged(gate_aside, 0.101, TOLERANCES, {})
    for first, second in ((good, bad), (bad, good)):
        both = replace(
            first,
            comparisons=[*first.comparisons, *second.comparisons],
            attributions=[*first.attributions, *second.attributions],
        )
        found = judge_run(both, TOLERANCES)
        assert found[:-1] == alone
        assert (found[-1].check, found[-1].severity) == ("versions", Severity.NOTE)
