"""Which tokens were trained less: the median of all, and groups against the rest, as was put in."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.verify.attribution import Attribution
from harness.verify.figures import StateComparison
from harness.verify.findings import Severity
from harness.verify.metrics import RunMetrics, metric_values
from harness.verify.student import normal_of
from harness.verify.token_checks import judge_token_losses
from harness.verify.token_losses import (
    Group,
    Sample,
    TokenShift,
    _groups,
    _z,
    token_shift,
)

Losses = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
ROWS, LENGTH, BATCH, VOCABULARY = 40, 64, 8, 200


def served(seed: int = 0) -> tuple[Sample, Losses]:
    """Rows 0 to 7 of five steps, and the reference's losses: frequent tokens have low ones."""
    generator = np.random.default_rng(seed)
    targets = np.minimum(generator.geometric(0.03, (ROWS, LENGTH)) - 1, VOCABULARY - 1)
    sample = Sample(
        targets=targets,
        rows=np.arange(ROWS) % BATCH,
        steps=np.arange(ROWS) // BATCH,
        global_batch=BATCH,
        occurrences=np.bincount(targets.ravel()),
        margins=np.random.default_rng(100 + seed).exponential(1, targets.shape).astype(np.float32),
    )
    losses = 2 + 0.05 * targets + generator.normal(0, 0.5, targets.shape)
    return sample, losses.astype(np.float32)


def noisy(losses: Losses, sample: Sample, seed: int, by_token: float = 0.0) -> Losses:
    """Honest: noise of every token of its own, and what moves all occurrences of a token together."""
    generator = np.random.default_rng(seed)
    own = generator.normal(0, 1e-3, losses.shape)
    shared = generator.normal(0, by_token, VOCABULARY)[sample.targets]
    noise: Losses = (losses + own + shared).astype(np.float32)
    return noise


def test_equal_losses_differ_in_nothing() -> None:
    sample, losses = served()
    found = token_shift(sample, losses, losses)
    assert found.median == 0.0
    assert found.worst == 0.0
    assert len(found.groups) > 20


def test_the_median_is_of_the_absolute_difference() -> None:
    sample, losses = served()
    sign = np.where(np.arange(LENGTH) % 2, 1, -1).astype(np.float32)
    assert token_shift(sample, losses, losses + 0.25 * sign).median == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_loss_that_is_not_finite_is_infinitely_far(bad: float) -> None:
    sample, losses = served()
    broken = losses.copy()
    broken[3, 5] = bad
    found = token_shift(sample, losses, broken)
    assert (found.median, found.worst, found.groups) == (math.inf, math.inf, ())


@pytest.mark.parametrize("by_token", [0.0, 3e-3])
def test_honest_noise_stays_below_five_standard_errors(by_token: float) -> None:
    """Also where a token's occurrences move together, which a test for independent tokens is fooled by."""
    worst = []
    for seed in range(40):
        sample, losses = served(seed)
        worst.append(token_shift(sample, losses, noisy(losses, sample, 99 + seed, by_token)).worst)
    assert np.median(worst) < 3.5
    assert max(worst) < 5.5


def z_of(shift: TokenShift) -> dict[str, float]:
    return {group.name: group.z for group in shift.groups}


def put_in(sample: Sample, losses: Losses, which: npt.NDArray[np.bool_]) -> TokenShift:
    """More loss for these, twice the noise of one token."""
    less = noisy(losses, sample, 7) + np.where(which, np.float32(2e-3), np.float32(0))
    return token_shift(sample, losses, less.astype(np.float32))


def test_the_lowest_losses_are_named() -> None:
    sample, losses = served()
    found = z_of(put_in(sample, losses, losses <= np.percentile(losses, 10)))
    assert found["the 10 % of tokens with the lowest loss"] > 4
    assert found["the 30 % of tokens with the lowest loss"] > 3


@pytest.mark.parametrize(
    ("which", "name"),
    [
        (np.arange(LENGTH) >= LENGTH - 4, "the last 4 positions of a row"),
        (np.arange(LENGTH) == LENGTH - 1, "the last position of a row"),
        (np.arange(LENGTH) // 8 == 2, "positions 17 to 24 of a row"),
        ((np.arange(ROWS) % BATCH == 5)[:, None], "row 6 of each step"),
        ((np.arange(ROWS) % BATCH >= 4)[:, None], "the second half of each step's rows"),
        ((np.arange(ROWS) // BATCH == 1)[:, None], "step 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_places_are_named(which: npt.NDArray[np.bool_], name: str) -> None:
    sample, losses = served()
    found = put_in(sample, losses, np.broadcast_to(which, losses.shape))
    assert z_of(found)[name] > 6


def test_tokens_at_the_limit_itself_are_among_the_lowest() -> None:
    sample, losses = served()
    lowest = {
        name: np.asarray(members)
        for name, members in _groups(sample, np.ones(losses.shape))
        if "lowest loss" in name
    }
    assert len(lowest) == 5
    assert all(members.all() for members in lowest.values())


def test_what_was_trained_more_is_below() -> None:
    sample, losses = served()
    which = np.broadcast_to(np.arange(LENGTH) < 8, losses.shape)
    other = noisy(losses, sample, 7) - np.where(which, np.float32(1e-3), np.float32(0))
    first = token_shift(sample, losses, other.astype(np.float32)).groups[0]
    assert (first.name, first.z < -6) == ("positions 1 to 8 of a row", True)


def test_rare_tokens_are_named_by_how_often_they_occur() -> None:
    sample, losses = served()
    often = sample.occurrences[sample.targets]
    found = put_in(sample, losses, (often >= 4) & (often < 8))
    assert found.groups[0].name == "tokens that occur 4 to 7 times"


def test_tokens_that_one_expert_would_do_for_are_named() -> None:
    sample, losses = served()
    assert sample.margins is not None
    found = put_in(sample, losses, sample.margins >= np.percentile(sample.margins, 90))
    assert z_of(found)["the 10 % of tokens that routers are surest of"] > 6
    without = token_shift(replace(sample, margins=None), losses, losses)
    assert not any("routers" in group.name for group in without.groups)


def test_a_group_of_a_few_tokens_says_nothing() -> None:
    sample, losses = served()
    first = {name: getattr(sample, name)[:1] for name in ("rows", "steps", "targets", "margins")}
    few = replace(sample, **first)
    names = {group.name for group in token_shift(few, losses[:1], losses[:1] + 1).groups}
    assert "the last 8 positions of a row" not in names
    assert not any(name.startswith("row") for name in names)  # there is no rest


# --- by hand --------------------------------------------------------------------------------------------


def by_hand(sample: Sample, level: Floats) -> dict[str, list[list[bool]]]:
    """Who is in which group, token by token."""
    lows = {p: float(np.percentile(level, p)) for p in (2, 5, 10, 20, 30)}
    rules: dict[str, Callable[[int, int], bool]] = {
        f"the {p} % of tokens with the lowest loss": lambda r, t, p=p: level[r, t] <= lows[p]  # type: ignore[misc]
        for p in lows
    }
    sure = sample.margins
    assert sure is not None
    highs = {p: float(np.percentile(sure, 100 - p)) for p in (5, 10, 20)}
    rules |= {
        f"the {p} % of tokens that routers are surest of": lambda r, t, p=p: sure[r, t] >= highs[p]  # type: ignore[misc]
        for p in highs
    }
    rules["the last position of a row"] = lambda r, t: t == 63
    for last in (2, 4, 8):
        rules[f"the last {last} positions of a row"] = lambda r, t, n=last: t + n >= 64  # type: ignore[misc]
    for eighth in range(8):
        name = f"positions {8 * eighth + 1} to {8 * eighth + 8} of a row"
        rules[name] = lambda r, t, e=eighth: t // 8 == e  # type: ignore[misc]
    for row in range(8):
        rules[f"row {row + 1} of each step"] = lambda r, t, w=row: r % 8 == w  # type: ignore[misc]
    rules["the second half of each step's rows"] = lambda r, t: r % 8 in (4, 5, 6, 7)
    for step in range(5):
        rules[f"step {step + 1}"] = lambda r, t, s=step: r // 8 == s  # type: ignore[misc]
    often = {int(token): int(n) for token, n in enumerate(sample.occurrences)}
    for low, high in ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127)):
        times = str(low) if low == high else f"{low} to {high}"
        rules[f"tokens that occur {times} times"] = (
            lambda r, t, a=low, b=high: a <= often[int(sample.targets[r, t])] <= b  # type: ignore[misc]
        )
    return {
        name: [[bool(rule(r, t)) for t in range(LENGTH)] for r in range(ROWS)]
        for name, rule in rules.items()
    }


def test_every_group_is_who_its_name_says() -> None:
    sample, losses = served()
    level = losses.astype(np.float64)
    found = {
        name: np.broadcast_to(members, losses.shape).tolist()
        for name, members in _groups(sample, level)
    }
    expected = by_hand(sample, level)
    assert found == {name: members for name, members in expected.items() if name in found}
    assert {name for name in expected if np.any(expected[name])} == set(found)


def jackknifed(
    difference: Floats, members: npt.NDArray[np.bool_], targets: npt.NDArray[np.int64]
) -> float:
    """The z of a group, one token left out after the other."""

    def apart(kept: npt.NDArray[np.bool_]) -> float:
        return float(difference[members & kept].mean() - difference[~members & kept].mean())

    whole = apart(np.ones_like(members))
    moves = [apart(targets != token) - whole for token in set(targets.ravel().tolist())]
    count = len(moves)
    clustered = (count - 1) / count * sum(move**2 for move in moves)
    alone = sum(
        side.var(ddof=1) / side.size for side in (difference[members], difference[~members])
    )
    t = whole / math.sqrt(max(clustered, alone) + 1e-12)
    if clustered <= alone:
        return t
    freedom = sum(move**2 for move in moves) ** 2 / sum(move**4 for move in moves)
    return normal_of(t, freedom)


@pytest.mark.parametrize(("by_token", "size"), [(0.0, 1e-3), (3e-3, 1e-3), (0.0, 1e-6)])
def test_z_is_that_of_leaving_out_one_token_after_the_other(by_token: float, size: float) -> None:
    """The last with differences as small as float32 resolves."""
    sample, losses = served(3)
    difference = (noisy(losses, sample, 5, by_token) - losses).astype(np.float64) * (size / 1e-3)
    level = losses.astype(np.float64)
    tried = 0
    for name, some in _groups(sample, level):
        members = np.broadcast_to(some, losses.shape)
        z = _z(difference, members, sample.targets)
        if z is not None:
            assert z == pytest.approx(jackknifed(difference, members, sample.targets), rel=1e-9), (
                name
            )
            tried += 1
    assert tried > 25


def test_what_float32_does_not_resolve_is_no_group_however_regular_it_is() -> None:
    """A clipped norm that is a last place larger moves all losses by a part of theirs."""
    sample, losses = served()
    shifted = (losses.astype(np.float64) * (1 - 1e-7)).astype(np.float32)
    assert not np.array_equal(shifted, losses)
    assert token_shift(sample, losses, shifted).worst < 1


def test_tokens_that_never_occur_are_no_clusters() -> None:
    sample, losses = served()
    difference = (noisy(losses, sample, 5, 3e-3) - losses).astype(np.float64)
    members = np.broadcast_to(np.arange(LENGTH) < 8, losses.shape)
    apart = sample.targets * 3  # every other number is of no token
    assert _z(difference, members, apart) == pytest.approx(_z(difference, members, sample.targets))


@pytest.mark.parametrize(("size", "said"), [(29, False), (30, True), (31, True)])
def test_thirty_tokens_are_a_group(size: int, said: bool) -> None:
    values = np.arange(100.0).reshape(1, 100)
    members = (np.arange(100) < size)[None]
    assert (_z(values, members, np.arange(100)[None]) is not None) == said
    assert (_z(values, ~members, np.arange(100)[None]) is not None) == said


@pytest.mark.parametrize(("others", "said"), [(0, False), (1, True)])
def test_a_group_of_one_token_alone_says_nothing(others: int, said: bool) -> None:
    """Leaving it out would leave nothing."""
    targets = np.where(np.arange(100) < 40 - others, 7, np.arange(100) + 100)[None]
    members = (np.arange(100) < 40)[None]
    assert (_z(np.arange(100.0)[None], members, targets) is not None) == said


def test_the_median_is_no_mean_and_no_maximum() -> None:
    sample, losses = served()
    other = losses.copy()
    other[0] += 100
    other[1:] += 0.5
    assert token_shift(sample, losses, other).median == pytest.approx(0.5, rel=1e-4)


# --- findings -----------------------------------------------------------------------------------------

TOLERANCES = Tolerances(
    loss=1, update_error=1, tensor_update_error=1, slice_update_error=1, norm_ratio=1,
    tensor_norm_ratio=1, step_weight=1, token_loss_shift=0.5, token_group_shift=4.0,
)  # fmt: skip


def metrics(*shifts: TokenShift) -> RunMetrics:
    honest = StateComparison((), 0.0, 1.0)
    return metric_values([honest], [Attribution((1.0,), 1.0)], 0.0, shifts)


def test_exactly_at_a_tolerance_is_accepted_and_the_least_beyond_it_is_not() -> None:
    at = TokenShift(0.5, (Group("row 1", 4.0), Group("row 2", -4.0)))
    assert judge_token_losses(metrics(at), [at], TOLERANCES) == []
    beyond = TokenShift(0.5 + 2**-40, (Group("row 1", -4.0 - 2**-40),))
    found = judge_token_losses(metrics(beyond), [beyond], TOLERANCES)
    assert [(f.check, f.code, f.severity, f.measured, f.allowed) for f in found] == [
        ("token_loss_shift", Code.UPDATE_MISMATCH, Severity.REJECTS, 0.5 + 2**-40, 0.5),
        ("token_group_shift", Code.UPDATE_MISMATCH, Severity.REJECTS, 4.0 + 2**-40, 4.0),
    ]


def test_the_groups_that_are_off_are_told_the_worst_first_and_how() -> None:
    groups = [
        Group(name, z) for name, z in (("A", 9.4), ("B", -8.0), ("C", 7.0), ("D", 5.0), ("E", 3.0))
    ]
    shift = TokenShift(0.0, tuple(groups))
    (found,) = judge_token_losses(metrics(shift), [shift], TOLERANCES)
    assert found.message == (
        "not all tokens were trained alike: A less than the others, z = 9.4; B more than the others, "
        "z = -8.0; C less than the others, z = 7.0; and 1 more (allowed 4)"
    )


def test_a_group_that_is_off_by_less_than_a_standard_error_is_told_rightly_too() -> None:
    shift = TokenShift(0.0, (Group("A", 0.7),))
    strict = TOLERANCES.model_copy(update={"token_group_shift": 0.5})
    (found,) = judge_token_losses(metrics(shift), [shift], strict)
    assert "A less than the others, z = 0.7" in found.message


def test_the_worst_version_is_judged() -> None:
    good, bad = TokenShift(0.0, (Group("A", 1.0),)), TokenShift(0.7, (Group("B", 5.0),))
    for both in ([good, bad], [bad, good]):
        shift, group = judge_token_losses(metrics(*both), both, TOLERANCES)
        assert shift.measured == 0.7
        assert "B less" in group.message


def test_what_is_not_finite_is_rejected() -> None:
    broken = TokenShift(math.inf, ())
    found = judge_token_losses(metrics(broken), [broken], TOLERANCES)
    assert [f.measured for f in found] == [math.inf, math.inf]
    assert "not finite" in found[1].message


def test_without_a_tolerance_nothing_is_judged() -> None:
    shift = TokenShift(9.0, (Group("A", 99.0),))
    old = TOLERANCES.model_copy(update={"token_loss_shift": None, "token_group_shift": None})
    assert judge_token_losses(metrics(shift), [shift], old) == []


def test_what_was_not_compared_is_noted() -> None:
    found = judge_token_losses(metrics(), [], TOLERANCES)
    assert [(f.check, f.severity) for f in found] == [
        ("token_loss_shift", Severity.NOTE), ("token_group_shift", Severity.NOTE)
    ]  # fmt: skip
