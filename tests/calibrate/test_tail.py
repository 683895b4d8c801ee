"""Bounds on noise: what is fitted, by hand and by lot; the rate holds where the fit's form does."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from harness.calibrate.tail import fit, usual
from harness.errors import Code, InputError
from harness.verify.metrics import NORMAL
from harness.verify.student import passed_at

RATE, LEAST = 1e-3, 1e-9
Noise = npt.NDArray[np.float64]


def logarithms(*values: float) -> tuple[float, ...]:
    return tuple(math.exp(value) for value in values)


def drawn(noise: Noise) -> dict[str, tuple[float, ...]]:
    return {str(n): tuple(map(float, row)) for n, row in enumerate(noise)}


def test_the_bound_is_the_prediction_of_one_more_run_of_the_noisiest_variant() -> None:
    quiet, noisy = logarithms(0, 0.2, 0.4, 0, 0.2, 0.4), logarithms(1, 1.2, 1.4, 1, 1.2, 1.4)
    found = fit("loss", {"quiet": quiet, "noisy": noisy}, RATE, LEAST)
    assert found is not None
    spread = math.sqrt(4 * 0.2**2 / 5)
    assert (found.variant, found.runs, found.wider, found.rate) == ("noisy", 6, 1.0, RATE)
    assert found.center == pytest.approx(math.exp(1.2))
    assert found.spread == pytest.approx(spread)
    reach = passed_at(RATE, 5) * spread * math.sqrt(1 + 1 / 6)
    assert found.bound == pytest.approx(math.exp(1.2 + reach))


@pytest.mark.parametrize("metric", ["loss", "matched_filter"])
def test_the_mean_of_some_runs_has_a_nearer_bound(metric: str) -> None:
    values = (1.0, 1.2, 1.4, 1.0, 1.2, 1.4)
    noise = {"a": logarithms(*values) if metric == "loss" else values}
    found = fit(metric, noise, RATE, LEAST, mean_of=3)
    assert found is not None
    reach = passed_at(RATE, 5) * np.std(values, ddof=1) * math.sqrt(1 / 3 + 1 / 6)
    bound = math.log(found.bound) if metric == "loss" else found.bound
    assert bound == pytest.approx(1.2 + reach)
    assert found.mean_of == 3


def test_the_mean_of_differences_without_their_signs_has_none() -> None:
    with pytest.raises(ValueError, match="without their signs"):
        fit("norm_ratio", {"a": (1.0,) * 6}, RATE, LEAST, mean_of=2)


def test_a_difference_without_its_sign_is_about_zero() -> None:
    """One that is nearly zero by luck says nothing of how far the others go."""
    values = (0.001, 2.0, 1.0, 2.0, 0.0, 1.0)
    found = fit("norm_ratio", {"a": values, "b": (0.1,) * 6}, RATE, LEAST)
    size = math.sqrt(sum(value * value for value in values) / 6)
    assert found is not None
    assert (found.variant, found.runs, found.wider) == ("a", 6, 1.0)
    assert found.bound == pytest.approx(size * passed_at(RATE / 2, 6), rel=1e-6)


@pytest.mark.parametrize("metric", ["loss", "norm_ratio"])
def test_noise_below_the_least_that_matters_is_none(metric: str) -> None:
    """Zeros, and roundings that vary by orders of magnitude."""
    found = fit(metric, {"a": (0.0, 1e-14, 3e-10, 0.0, 1e-12, 9e-10)}, RATE, LEAST)
    assert found is not None
    assert found.bound == pytest.approx(
        LEAST if metric == "loss" else LEAST * passed_at(RATE / 2, 6)
    )


def test_of_no_variants_there_is_nothing_to_bound() -> None:
    assert fit("loss", {}, RATE, LEAST) is None
    assert usual({}, RATE, LEAST) == LEAST


def test_a_z_that_is_low_by_luck_does_not_widen_the_bound() -> None:
    """Of its logarithm it would be the run that is furthest out."""
    values = (0.0, 2.0, 3.0, 1.0, 2.0, 3.0)
    found = fit("matched_filter", {"a": values}, RATE, 0.06)
    reach = passed_at(RATE, 5) * np.std((0.06, *values[1:]), ddof=1) * math.sqrt(7 / 6)
    assert found is not None
    assert found.wider == 1.0
    assert found.center == pytest.approx(11.06 / 6)
    assert found.bound == pytest.approx(11.06 / 6 + reach)


@pytest.mark.parametrize("metric", ["loss", "norm_ratio"])
def test_a_handful_of_runs_is_too_few(metric: str) -> None:
    with pytest.raises(InputError, match="5 runs of the variant 'b' are too few") as few:
        fit(metric, {"a": (1.0,) * 6, "b": (1.0,) * 5}, RATE, LEAST)
    assert few.value.code is Code.BAD_ARGUMENT


@pytest.mark.parametrize("metric", ["loss", "norm_ratio"])
def test_a_worst_run_that_is_too_far_out_widens_the_spread(metric: str) -> None:
    generator = np.random.default_rng(0)
    close = tuple(map(float, np.exp(0.1 * generator.standard_normal(40))))
    found = fit(metric, {"a": (*close, 30.0)}, RATE, LEAST)
    without = fit(metric, {"a": close}, RATE, LEAST)
    assert found is not None and without is not None
    assert without.wider < 1.1 < 1.3 < found.wider
    assert found.bound > 30 > without.bound


def of_lognormals(generator: np.random.Generator) -> Noise:
    return np.exp(0.3 * generator.standard_normal((12, 24)))


def of_one_challenge_each(generator: np.random.Generator) -> Noise:
    """All variants alike on each challenge, as where noise is the reference's own."""
    return np.exp(0.3 * np.repeat(generator.standard_normal((1, 24)), 12, axis=0))


def of_unequal(generator: np.random.Generator) -> Noise:
    """One variant has three times the noise of the others."""
    noise: Noise = np.exp(0.3 * generator.standard_normal((12, 24)))
    noise[1:] /= 3
    return noise


def of_folded(generator: np.random.Generator) -> Noise:
    noise = np.abs(generator.standard_normal((12, 24)))
    noise[1:] /= 3
    return noise


def of_worsts(generator: np.random.Generator) -> Noise:
    """The worst of many tensors, as most figures are."""
    worst: Noise = np.abs(generator.standard_normal((12, 24, 50))).max(axis=2)
    return worst


def of_directions(generator: np.random.Generator) -> Noise:
    """The largest of seven zs, one-sided."""
    worst: Noise = np.maximum(0.0, generator.standard_normal((12, 24, 7)).max(axis=2))
    return worst


def beyond_lognormal(bound: float) -> float:
    return 1 - NormalDist().cdf(math.log(bound) / 0.3)


@pytest.mark.parametrize(
    ("metric", "draw", "exceeded"),
    [
        ("loss", of_lognormals, beyond_lognormal),
        ("loss", of_one_challenge_each, beyond_lognormal),
        ("loss", of_unequal, beyond_lognormal),
        ("norm_ratio", of_folded, lambda bound: 2 * (1 - NormalDist().cdf(bound))),
        ("tensor_update_error", of_worsts, lambda bound: 100 * (1 - NormalDist().cdf(bound))),
        ("matched_filter", of_directions, lambda bound: 7 * (1 - NormalDist().cdf(bound))),
    ],
)
def test_honest_runs_exceed_the_bound_at_the_rate_at_most(
    metric: str,
    draw: Callable[[np.random.Generator], Noise],
    exceeded: Callable[[float], float],
) -> None:
    """The mean over 300 calibrations of how often a run of the noisiest variant does, computed exactly."""
    generator = np.random.default_rng(1)
    rates = []
    for _ in range(300):
        found = fit(metric, drawn(draw(generator)), RATE, LEAST)
        assert found is not None
        rates.append(exceeded(found.bound))
    assert np.mean(rates) < 1.3 * RATE
    assert np.mean(rates) > RATE / 1000, "nor is it so wide that nothing would be rejected"


@pytest.mark.parametrize(
    ("metric", "draw"),
    [
        ("loss", of_lognormals),
        ("loss", of_one_challenge_each),
        ("tensor_update_error", of_worsts),
        ("matched_filter", of_directions),
    ],
)
def test_means_of_honest_runs_exceed_their_bound_at_the_rate_at_most(
    metric: str, draw: Callable[[np.random.Generator], Noise]
) -> None:
    """How often the mean of two further runs does, of 200,000 drawn; for 100 calibrations."""
    generator = np.random.default_rng(2)
    further = np.concatenate([draw(generator)[0] for _ in range(20_000)])[:400_000].reshape(-1, 2)
    logs = further if metric in NORMAL else np.log(np.maximum(further, LEAST))
    means = np.sort(logs.mean(axis=1) if metric in NORMAL else np.exp(logs.mean(axis=1)))
    rates = []
    for _ in range(100):
        found = fit(metric, drawn(draw(generator)), RATE, LEAST, mean_of=2)
        assert found is not None
        rates.append(1 - np.searchsorted(means, found.bound, side="right") / len(means))
    assert np.mean(rates) < 1.3 * RATE


def test_the_usual_noise_is_not_moved_by_a_few_runs_that_are_far_out() -> None:
    generator = np.random.default_rng(0)
    noise = drawn(np.exp(0.2 * generator.standard_normal((12, 24))))
    flipped = {**noise, "3": (*noise["3"][:23], 1e3)}
    close, with_flip = usual(noise, RATE, LEAST), usual(flipped, RATE, LEAST)
    assert 1.5 < close < 5
    assert with_flip < 1.3 * close
    assert usual(noise, RATE, 100.0) == pytest.approx(100.0)


def of_flips(generator: np.random.Generator) -> Noise:
    """In half of the runs no tie flips, or none that matters."""
    noise = generator.standard_normal((12, 24))
    noise = np.where(generator.random((12, 24)) < 0.5, np.exp(noise - 6), np.exp(0.5 * noise - 2))
    return np.minimum(1.0, noise)


def test_where_most_runs_are_far_below_the_worst_the_upper_half_says_how_far_noise_goes() -> None:
    """The mean over 300 calibrations of how often a run exceeds the bound, computed exactly."""
    generator, rates, bounds = np.random.default_rng(3), [], []
    for _ in range(300):
        found = fit("slice_update_error", drawn(of_flips(generator)), RATE, LEAST)
        assert found is not None
        bounds.append(found.bound)
        beyond = 0.5 * (1 - NormalDist().cdf((math.log(min(1.0, found.bound)) + 2) / 0.5))
        rates.append(beyond if found.bound < 1 else 0.0)
    assert np.mean(rates) < 1.3 * RATE
    assert 0.5 < np.median(bounds) < 1.5


def test_an_exponential_tail_is_the_prediction_from_what_is_above_the_median() -> None:
    values = (1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.03, 0.02)
    found = fit("step_weight", {"a": values}, RATE, LEAST)
    assert found is not None
    center, distances = 0.01, (0.01, 0.02, 0.01)
    assert (found.tail, found.center, found.runs) == ("exponential", center, 7)
    assert found.spread == pytest.approx(sum(distances) / 3)
    by_hand = center + sum(distances) * ((2 * RATE) ** (-1 / 3) - 1)
    assert found.bound == pytest.approx(by_hand)
    mean = fit("step_weight", {"a": values}, RATE, LEAST, mean_of=2)
    assert mean is not None
    assert mean.bound == pytest.approx(center + sum(distances) * (RATE ** (-1 / 3) - 1))


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 1.0, 1.0, 1.0, 0.001, 2.0),  # one is above the median: too few
        (0.9, 1.0, 1.1, 1.2, 1.3, 1.4),  # not wide
        (0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 9.0),  # the worst is too far from the others
    ],
)
def test_other_noise_is_fitted_by_its_logarithm(values: tuple[float, ...]) -> None:
    found = fit("step_weight", {"a": values}, RATE, LEAST)
    assert found is not None
    assert found.tail == "normal"


#: `slice_update_error` of 14 honest runs with eager experts, SGD in bfloat16: in the first no tie flipped.
ONE_WITHOUT_A_FLIP = (
    4.43e-05, 0.0111, 0.0121, 0.0129, 0.0131, 0.0178, 0.0218, 0.0236, 0.0238, 0.0289, 0.0295, 0.0304,
    0.0444, 0.0588,
)  # fmt: skip


def test_a_run_that_is_far_below_the_others_says_nothing_of_how_far_noise_goes() -> None:
    found = fit("slice_update_error", {"eager experts": ONE_WITHOUT_A_FLIP}, RATE, LEAST)
    without = fit("slice_update_error", {"eager experts": ONE_WITHOUT_A_FLIP[1:]}, RATE, LEAST)
    assert found is not None and without is not None
    assert found.bound == pytest.approx(without.bound, rel=0.2)
    assert max(ONE_WITHOUT_A_FLIP) < found.bound < 0.2


def test_runs_of_another_kind_are_left_out_of_a_logarithm_s_fit() -> None:
    """`tensor_norm_ratio` of honest runs with eager experts: in six of 24 no tie flipped."""
    without = (1.3e-07, 1.6e-07, 2.8e-07, 3.9e-07, 5.3e-07, 6.1e-07)
    flipped = (
        2.3e-03, 3.1e-03, 3.3e-03, 3.6e-03, 3.9e-03, 4.9e-03, 5.2e-03, 5.5e-03, 8.6e-03, 8.8e-03, 9.7e-03,
        1.0e-02, 1.1e-02, 1.2e-02, 1.4e-02, 1.8e-02, 2.4e-02, 5.9e-02,
    )  # fmt: skip
    both = fit("tensor_norm_ratio", {"a": (*without, *flipped)}, RATE, LEAST)
    alone = fit("tensor_norm_ratio", {"a": flipped}, RATE, LEAST)
    assert both == alone
    assert both is not None
    assert (both.tail, both.runs) == ("normal", 18)
    assert max(flipped) < both.bound < 0.3


def test_a_run_that_is_far_above_the_others_is_never_left_out() -> None:
    found = fit("loss", {"a": (*logarithms(*[0.0, 0.1] * 6), math.exp(5))}, RATE, LEAST)
    assert found is not None
    assert found.runs == 13
    assert found.bound > math.exp(5)
