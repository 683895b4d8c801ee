"""Bounds on noise: what is fitted, by hand and by lot; the rate holds where the fit's form does."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from harness.calibrate.tail import fit, usual
from harness.errors import Code, InputError
from harness.verify.student import passed_at

RATE = 1e-3


def logarithms(*values: float) -> tuple[float, ...]:
    return tuple(math.exp(value) for value in values)


def test_the_bound_is_the_prediction_of_one_more_run_of_the_noisiest_variant() -> None:
    noise = {"a": logarithms(0.0, 0.2, 0.4, 0.6), "b": logarithms(1.0, 1.2, 1.4, 1.6)}
    found = fit("loss", noise, RATE)
    assert found is not None
    spread = math.sqrt(2 * (2 * 0.3**2 + 2 * 0.1**2) / 6)
    assert (found.variant, found.freedom, found.wider) == ("b", 6, 1.0)
    assert found.center == pytest.approx(math.exp(1.3))
    assert found.spread == pytest.approx(spread)
    expected = 1.3 + passed_at(RATE, 6) * spread * math.sqrt(1 + 1 / 4)
    assert found.bound == pytest.approx(math.exp(expected))
    assert found.rate == RATE


def test_a_difference_without_its_sign_is_about_zero() -> None:
    """One that is nearly zero by luck says nothing of how far the others go."""
    values = (0.001, 2.0, 1.0, 2.0, 1e-9, 1.0)
    found = fit("norm_ratio", {"a": values, "b": (0.1,) * 6}, RATE)
    size = math.sqrt(sum(value * value for value in values) / 6)
    assert found is not None
    assert (found.variant, found.freedom, found.wider) == ("a", 12, 1.0)
    assert found.bound == pytest.approx(size * passed_at(RATE / 2, 12))


def test_variants_with_a_tenth_of_the_noise_say_nothing_of_it() -> None:
    noisy = {"a": logarithms(0.0, 0.1, 0.2, 0.0, 0.1, 0.2)}
    rounded = (1e-9, 3e-7, 0.0, 1e-12, 1e-9, 1e-8)
    assert fit("loss", {**noisy, "the same again": rounded}, RATE) == fit("loss", noisy, RATE)


def test_without_noise_there_is_nothing_to_bound() -> None:
    for metric in ("loss", "norm_ratio"):
        assert fit(metric, {"a": (0.0, 0.0)}, RATE) is None
        assert fit(metric, {}, RATE) is None
    assert usual({"a": (0.0, 0.0)}, RATE) is None


@pytest.mark.parametrize("metric", ["loss", "norm_ratio"])
def test_a_handful_of_runs_is_too_few(metric: str) -> None:
    with pytest.raises(
        InputError, match=f"too few runs to say how far the noise of {metric}"
    ) as few:
        fit(metric, {"a": (1.0, 2.0), "b": (1.0, 2.0)}, RATE)
    assert few.value.code is Code.BAD_ARGUMENT


@pytest.mark.parametrize("metric", ["loss", "norm_ratio"])
def test_a_worst_run_that_is_too_far_out_widens_the_spread(metric: str) -> None:
    generator = np.random.default_rng(0)
    close = np.exp(0.1 * generator.standard_normal(40))
    far = (*close, 30.0)
    found, without = fit(metric, {"a": far}, RATE), fit(metric, {"a": tuple(close)}, RATE)
    assert found is not None and without is not None
    assert without.wider < 1.1 < 1.3 < found.wider
    assert found.bound > max(far) > without.bound


Noise = npt.NDArray[np.float64]


def of_lognormals(generator: np.random.Generator) -> Noise:
    return np.exp(0.3 * generator.standard_normal((12, 8)))


def of_folded(generator: np.random.Generator) -> Noise:
    return np.abs(generator.standard_normal((12, 8)))


def of_worsts(generator: np.random.Generator) -> Noise:
    """The worst of many tensors, as most figures are."""
    worst: Noise = np.abs(generator.standard_normal((12, 8, 50))).max(axis=2)
    return worst


@pytest.mark.parametrize(
    ("metric", "draw", "passed"),
    [
        ("loss", of_lognormals, lambda bound: 1 - NormalDist().cdf(math.log(bound) / 0.3)),
        ("norm_ratio", of_folded, lambda bound: 2 * (1 - NormalDist().cdf(bound))),
        ("tensor_update_error", of_worsts, lambda bound: 100 * (1 - NormalDist().cdf(bound))),
    ],
)
def test_honest_runs_pass_the_bound_at_the_rate_at_most(
    metric: str,
    draw: Callable[[np.random.Generator], Noise],
    passed: Callable[[float], float],
) -> None:
    """What a run of the same noise does to the bounds of 200 calibrations, computed exactly."""
    generator = np.random.default_rng(1)
    rates = []
    for _ in range(200):
        noise = {str(n): tuple(map(float, row)) for n, row in enumerate(draw(generator))}
        found = fit(metric, noise, RATE)
        assert found is not None
        rates.append(passed(found.bound))
    assert np.mean(rates) < RATE
    assert np.mean(rates) > RATE / 100, "nor is it so wide that nothing would be rejected"


def test_the_usual_noise_is_not_moved_by_a_few_runs_that_are_far_out() -> None:
    generator = np.random.default_rng(0)
    noise = {str(n): tuple(np.exp(0.2 * generator.standard_normal(8))) for n in range(12)}
    flipped = {**noise, "3": (*noise["3"][:7], 1e3)}
    close, with_flip = usual(noise, RATE), usual(flipped, RATE)
    assert close is not None and with_flip is not None
    assert 1.5 < close < 4
    assert with_flip < 1.2 * close
