"""Directions of approximations: what moves along one is named, and noise, however it is spread, is not."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.verify.attribution import Attribution
from harness.verify.figures import StateComparison
from harness.verify.filter_checks import judge_filters
from harness.verify.filters import Along, look_along
from harness.verify.findings import Severity
from harness.verify.metrics import RunMetrics, metric_values

Floats = npt.NDArray[np.float64]
SAMPLES = 10_000
WORDS, OTHER = "the last layer is skipped", "every second token is left out"


def drawn(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(*shape, SAMPLES))


STEPS = drawn(1, 4)
LEFT_OUT = drawn(2)
#: Of one step that was looked at.
DIRECTIONS = {WORDS: LEFT_OUT[None], OTHER: drawn(3, 1)}


def test_a_tenth_of_the_noise_is_found_where_it_has_the_direction() -> None:
    found = look_along(DIRECTIONS, STEPS, drawn(4) + 0.1 * LEFT_OUT)
    assert found[0].left_out == WORDS
    # A part p of the direction in noise of the same size: z = p · √samples, give or take one.
    assert found[0].z == pytest.approx(0.1 * math.sqrt(SAMPLES), abs=3)
    assert abs(found[1].z) < 4


def test_how_small_everything_is_does_not_matter() -> None:
    off = drawn(4) + 0.1 * LEFT_OUT
    small = look_along({WORDS: 1e-9 * DIRECTIONS[WORDS]}, STEPS, 1e-7 * off)
    assert small[0].z == pytest.approx(look_along(DIRECTIONS, STEPS, off)[0].z)


def test_the_other_way_is_no_finding() -> None:
    found = look_along(DIRECTIONS, STEPS, -LEFT_OUT)
    assert found[0].left_out == OTHER
    # Of normal x = e/σ: √samples · E[x²/(x² + k²)] / √E[x⁴/(x² + k²)²], and k is 3 medians of |x|.
    assert found[1].z == pytest.approx(-0.699 * math.sqrt(SAMPLES), rel=0.02)


def test_a_longer_or_a_missing_step_has_no_direction_but_its_own() -> None:
    directions = {WORDS: DIRECTIONS[WORDS] + 5 * STEPS[2]}
    (along,) = look_along(directions, STEPS, 0.3 * STEPS[2] - STEPS[0] + 1e-3 * drawn(5))
    assert abs(along.z) < 4


@pytest.mark.parametrize("seed", range(5))
def test_a_few_coordinates_far_off_carry_nothing(seed: int) -> None:
    """As a flipped near tie moves an expert's weights."""
    noise = 1e-6 * drawn(10 + seed)
    noise[[17, 4711]] = 1e3 * np.sign(LEFT_OUT[[17, 4711]])
    found = {along.left_out: along.z for along in look_along(DIRECTIONS, STEPS, noise)}
    assert abs(found[WORDS]) < 4


@pytest.mark.parametrize("seed", range(5))
def test_weights_that_noise_moves_far_do_not_hide_what_the_others_say(seed: int) -> None:
    """A third of them are moved a hundred times as far, as in an expert to which other tokens came."""
    noise = drawn(20 + seed)
    noise[::3] *= 100
    honest, moved = (look_along(DIRECTIONS, STEPS, noise + part * LEFT_OUT) for part in (0, 0.4))
    # If all weights counted alike: 0.4 · √10,000 / 58, so 0.7.
    assert max(abs(along.z) for along in honest) < 4
    assert moved[0].left_out == WORDS
    assert moved[0].z > 8


def test_one_step_of_those_that_were_looked_at_decides_nothing() -> None:
    """As where a tie that rounding decided changed much, for a token that the direction is about too."""
    looked = {WORDS: np.stack([LEFT_OUT, *drawn(8, 3)])}
    (once,) = look_along(looked, STEPS, drawn(9) + 0.5 * LEFT_OUT)
    (always,) = look_along(looked, STEPS, drawn(9) + 0.1 * looked[WORDS].sum(axis=0))
    assert abs(once.z) < 4
    # In each of four 0.1 · √samples, and of three of them √3 times that.
    assert always.z == pytest.approx(0.1 * math.sqrt(3 * SAMPLES), abs=4)


def test_an_equal_state_is_nowhere_and_one_that_is_not_finite_is_everywhere() -> None:
    assert [along.z for along in look_along(DIRECTIONS, STEPS, np.zeros(SAMPLES))] == [0.0, 0.0]
    broken = drawn(6)
    broken[3] = math.nan
    assert [along.z for along in look_along(DIRECTIONS, STEPS, broken)] == [math.inf, math.inf]


def test_an_approximation_that_changes_nothing_is_no_direction() -> None:
    (along,) = look_along({WORDS: np.zeros((1, SAMPLES))}, STEPS, drawn(7))
    assert along.z == 0.0


def test_steps_that_are_all_alike_can_be_taken_out() -> None:
    steps = np.stack([STEPS[0], STEPS[0], np.zeros(SAMPLES)])
    (along,) = look_along({WORDS: DIRECTIONS[WORDS]}, steps, LEFT_OUT + STEPS[0])
    assert along.z > 50


# --- what the judge says ----------------------------------------------------------------------

TOLERANCES = Tolerances(
    loss=1, update_error=1, tensor_update_error=1, slice_update_error=1, norm_ratio=1,
    tensor_norm_ratio=1, step_weight=1, matched_filter=8.0,
)  # fmt: skip


def metrics(*alongs: tuple[Along, ...]) -> RunMetrics:
    honest = StateComparison((), 0.0, 1.0)
    return metric_values([honest], [Attribution((1.0,), 1.0)], 0.0, (), alongs)


def test_what_seems_to_be_left_out_is_named_with_what_resembles_it() -> None:
    alongs = [
        (Along("a", 3.0), Along("b", 2.0)),
        (Along(WORDS, 28.0), Along(OTHER, 9.0), Along("a", 7.9), Along("b", -20.0)),
    ]
    (finding,) = judge_filters(metrics(*alongs), alongs, TOLERANCES)
    assert (finding.code, finding.check) == (Code.UPDATE_MISMATCH, "matched_filter")
    assert (finding.severity, finding.measured, finding.allowed) == (Severity.REJECTS, 28.0, 8.0)
    assert finding.message == (
        "the update differs from the reference's as it would if the last layer is skipped, z = 28.0; "
        "or every second token is left out, z = 9.0 (allowed 8)"
    )


def test_three_are_named_at_most() -> None:
    alongs = [tuple(Along(name, 20.0 - n) for n, name in enumerate("abcde"))]
    (finding,) = judge_filters(metrics(*alongs), alongs, TOLERANCES)
    assert finding.message.endswith("if a, z = 20.0; or b, z = 19.0; or c, z = 18.0 (allowed 8)")


def test_within_the_tolerance_nothing_is_said() -> None:
    alongs = [(Along(WORDS, 8.0), Along(OTHER, -50.0))]
    assert judge_filters(metrics(*alongs), alongs, TOLERANCES) == []


def test_what_moves_the_other_way_measures_nothing() -> None:
    assert metrics((Along(WORDS, -3.0),)).matched_filter == 0.0


def test_without_directions_a_note_says_so_and_without_a_tolerance_nothing_does() -> None:
    (finding,) = judge_filters(metrics(), [], TOLERANCES)
    assert finding.severity is Severity.NOTE
    old = TOLERANCES.model_copy(update={"matched_filter": None})
    assert judge_filters(metrics(), [], old) == []
    assert judge_filters(metrics((Along(WORDS, 99.0),)), [(Along(WORDS, 99.0),)], old) == []
