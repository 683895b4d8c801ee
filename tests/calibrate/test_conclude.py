"""Tolerances from noise. The launches of real variants are `validator calibrate`'s own business and
`tests/reference/test_loop.py`'s; here is what is made of their figures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.rules import Calibration, CalibrationVariant, Tolerances
from harness.calibrate.conclude import (
    CEILINGS,
    FLOORS,
    TIE_RATE,
    conclude,
    round_up,
    write,
)
from harness.calibrate.evidence import Evidence, nothing_yet
from harness.calibrate.measure import of_runs
from harness.calibrate.tail import fit
from harness.calibrate.variants import TIES, NamedVariant
from harness.errors import Code, InputError
from harness.reference.task import Variant
from harness.verify.metrics import RunMetrics
from harness.verify.rates import at_most

NAMES = tuple(Tolerances.model_fields)
RATE = 1e-3
#: About one, as much as honest runs differ by.
ABOUT = (0.8, 0.9, 1.0, 1.1, 1.2, 1.0)


def measured(
    value: float, counted: bool = True, name: str = "variant", **others: float
) -> CalibrationVariant:
    """Six runs of about these values."""
    values = {
        metric: tuple(about * size for about in ABOUT)
        for metric, size in {**dict.fromkeys(NAMES, value), **others}.items()
    }
    return CalibrationVariant(
        name=name, runs=len(ABOUT), counted=counted, values=values,
        worst={metric: max(each) for metric, each in values.items()},
    )  # fmt: skip


def concluded(
    loaded: LoadedHparams, variants: Sequence[CalibrationVariant], rate: float = RATE
) -> tuple[Tolerances, Calibration]:
    """What follows from these runs."""
    return conclude(loaded, evidence(loaded, *variants), rate)


def evidence(loaded: LoadedHparams, *variants: CalibrationVariant) -> Evidence:
    return nothing_yet(loaded, "cpu").model_copy(update={"variants": variants})


def share(loaded: LoadedHparams, means: int = 0) -> float:
    """What is allowed, shared by all metrics of the runs of an evaluation, and by means over the runs."""
    return RATE / (loaded.hparams.evaluation_runs * len(NAMES) + means)


def bound(metric: str, rate: float, *variants: CalibrationVariant, mean_of: int = 1) -> float:
    least = getattr(FLOORS, metric) / 100
    noise = {each.name: each.values[metric] for each in variants}
    found = fit(metric, noise, rate, least, mean_of)
    assert found is not None
    return found.bound


def test_a_tolerance_is_the_bound_on_counted_noise_rounded_up(loaded: LoadedHparams) -> None:
    noise = measured(1e-9, update_error=1.234e-2)
    tolerances, calibration = concluded(loaded, [noise, measured(0.2, False, "not")])
    by_hand = bound("update_error", share(loaded, means=len(NAMES) - 1), noise)
    assert by_hand <= tolerances.update_error <= 1.1 * by_hand
    assert tolerances.update_error == round_up(by_hand)
    assert calibration.fits["update_error"].bound == by_hand
    assert "update_error" not in calibration.floors
    assert (calibration.runs, calibration.false_alarms) == (6, RATE)


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.0, 0.0), (0.121, 0.13), (0.12, 0.12), (5.01e-5, 5.1e-5), (99.1, 100.0)]
)  # fmt: skip
def test_a_tolerance_has_two_digits_and_is_never_below_its_bound(
    value: float, rounded: float
) -> None:
    assert round_up(value) == pytest.approx(rounded)


def test_means_over_runs_have_bounds_of_their_own_where_no_run_has_to_be_as_near_as_float32(
    loaded: LoadedHparams,
) -> None:
    """A difference without its sign has none, nor has a metric that a floor holds for, unless it is a z."""
    noise = measured(1e-9, update_error=1e-2, norm_ratio=1e-2, matched_filter=4.0)
    tolerances, calibration = concluded(loaded, [noise])
    assert set(calibration.means) == {"update_error", "matched_filter"}
    rate = share(loaded, means=len(NAMES) - 1)
    by_hand = bound("update_error", rate, noise, mean_of=loaded.hparams.evaluation_runs)
    found = calibration.means["update_error"]
    assert (found.bound, found.rate, found.mean_of) == (by_hand, rate, 2)
    assert found.bound < tolerances.update_error / 1.1
    along = bound("matched_filter", rate, noise, mean_of=2)
    assert calibration.means["matched_filter"].bound == along
    ties = measured(1e-9, name=TIES, update_error=1e-2)
    assert not concluded(loaded, [noise, ties])[1].means
    single = loaded.model_copy(
        update={"hparams": loaded.hparams.model_copy(update={"evaluation_runs": 1})}
    )
    assert not concluded(single, [noise])[1].means


def test_the_floor_of_a_z_is_smaller_for_a_mean_as_standard_errors_are(
    loaded: LoadedHparams,
) -> None:
    """In a tolerance a floor holds then, and in the mean over two runs its part."""
    tolerances, calibration = concluded(loaded, [measured(1e-9, matched_filter=0.5)])
    assert tolerances.matched_filter == FLOORS.matched_filter
    (mean,) = calibration.means.items()
    assert (mean[0], mean[1].bound) == ("matched_filter", 4.5 / math.sqrt(2))


def test_a_mean_is_not_held_to_less_than_a_floor(loaded: LoadedHparams) -> None:
    floor = FLOORS.update_error
    noise = measured(1e-9, update_error=floor / 6)
    tolerances, calibration = concluded(loaded, [noise])
    assert tolerances.update_error > floor == calibration.means["update_error"].bound


def test_fewer_false_alarms_are_a_wider_tolerance(loaded: LoadedHparams) -> None:
    noise = [measured(1e-9, update_error=1e-2)]
    rare, often = (concluded(loaded, noise, rate)[0].update_error for rate in (1e-4, 1e-2))
    assert rare > 1.2 * often


def test_a_tolerance_never_falls_below_its_floor_and_the_evidence_says_so(
    loaded: LoadedHparams,
) -> None:
    for value in (0.0, 1e-9):
        tolerances, calibration = concluded(loaded, [measured(value)])
        assert tolerances == FLOORS
        assert set(calibration.floors) == set(NAMES)


def test_a_flipped_tie_counts_as_often_as_ties_flip(loaded: LoadedHparams) -> None:
    """Far out where ties are forced; of honest runs few have one."""
    plain, ties = measured(1e-9, update_error=1e-4), measured(1e-9, name=TIES, update_error=1e-2)
    tolerances, calibration = concluded(loaded, [plain, ties])
    found = calibration.fits["update_error"]
    # None of six runs flipped by itself, which leaves 39 % possible.
    assert found.variant == TIES and found.rate == pytest.approx(
        share(loaded) / 2 / 0.3930, rel=1e-3
    )
    many = plain.model_copy(
        update={
            "runs": 600,
            "values": {name: each * 100 for name, each in plain.values.items()},
        }
    )
    found = concluded(loaded, [many, ties])[1].fits["update_error"]
    assert found.rate == pytest.approx(share(loaded) / 2 / TIE_RATE)
    assert tolerances.update_error == round_up(
        bound("update_error", share(loaded) / 2 / at_most(0, 6), ties)
    )
    quiet = measured(1e-9, name=TIES, update_error=1e-5)
    noisy = measured(1e-9, update_error=5e-3)
    found = concluded(loaded, [noisy, quiet])[1].fits["update_error"]
    assert (found.variant, found.bound) == (
        "variant",
        bound("update_error", share(loaded) / 2, noisy),
    )


def test_a_tie_that_flipped_by_itself_makes_no_tolerance_wider(loaded: LoadedHparams) -> None:
    """It belongs to those that are forced, and counts for how often they flip."""
    many = measured(1e-9, update_error=1e-6)
    many = many.model_copy(
        update={"runs": 30, "values": {name: each * 5 for name, each in many.values.items()}}
    )
    flipped = many.model_copy(
        update={
            "values": {
                name: (*each[:-1], 0.5 if name == "update_error" else 0.01)
                for name, each in many.values.items()
            }
        }
    )
    ties = measured(1e-3, name=TIES)
    quiet, loud = (concluded(loaded, [each, ties]) for each in (many, flipped))
    assert quiet[1].strict_update_error == loud[1].strict_update_error == 1e-4
    assert loud[0].update_error < 1.5 * quiet[0].update_error
    rates = [each[1].fits["update_error"].rate for each in (quiet, loud)]
    assert rates[1] == pytest.approx(rates[0] * at_most(0, 30) / at_most(1, 30))


def test_every_run_of_a_variant_is_written_down_with_the_worst() -> None:
    fields = dict.fromkeys(set(RunMetrics.model_fields) - {"token_loss_shift"}, 0.5)
    runs = [RunMetrics.model_validate(fields | {"loss": loss}) for loss in (0.123456, 0.2, 1e-12)]
    base = Variant(world_size=1, micro_batches=1, compute_dtype="float32")
    variant = of_runs(NamedVariant("it", base, False), runs)
    assert (variant.name, variant.runs, variant.counted) == ("it", 3, False)
    assert variant.values["loss"] == (0.123, 0.2, 1e-12)
    assert variant.worst["loss"] == 0.2
    assert "token_loss_shift" not in variant.values


def test_the_strict_bound_leaves_out_the_variant_that_forces_ties(loaded: LoadedHparams) -> None:
    honest = measured(1e-9, update_error=1e-4)
    ties = measured(1e-9, name=TIES, update_error=5e-3)
    strict = concluded(loaded, [honest, ties])[1].strict_update_error
    assert strict is not None and 1.2e-4 < strict < 1e-3
    close = measured(1e-9, update_error=1e-6)
    assert concluded(loaded, [close, ties])[1].strict_update_error == 1e-4  # the floor
    assert concluded(loaded, [honest])[1].strict_update_error is None, "bfloat16 forces none"


def test_the_strict_bound_is_of_the_benchmark_that_was_calibrated(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    copy = tmp_path / "hparams.json"
    copy.write_bytes(loaded.path.read_bytes())
    write(copy, *concluded(loaded, [measured(1e-9), measured(1e-9, name=TIES)]))
    assert load(copy).hparams.together.strict_update_error == 1e-4
    raw = json.loads(copy.read_bytes())
    raw["steps"]["max"] += 1
    copy.write_text(json.dumps(raw))
    assert load(copy).hparams.together.strict_update_error is None


def test_what_was_not_measured_has_no_tolerance(loaded: LoadedHparams) -> None:
    """A benchmark that compares no tokens' losses."""
    variant = measured(1e-3)
    known = {name: each for name, each in variant.values.items() if not name.startswith("token_")}
    variant = variant.model_copy(update={"values": known})
    tolerances, calibration = concluded(loaded, [variant])
    assert tolerances.token_loss_shift is None and tolerances.token_group_shift is None
    assert "token_loss_shift" not in calibration.floors


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverges_cannot_be_judged(loaded: LoadedHparams, value: float) -> None:
    diverged = measured(1e-3)
    diverged = diverged.model_copy(
        update={"values": {**diverged.values, "step_weight": (1e-3, value)}}
    )
    with pytest.raises(InputError, match="step_weight of honest runs is not finite") as caught:
        concluded(loaded, [diverged])
    assert caught.value.code is Code.HPARAMS_INVALID


@pytest.mark.parametrize("name", list(CEILINGS))
def test_a_benchmark_whose_noise_hides_cheats_is_refused(loaded: LoadedHparams, name: str) -> None:
    with pytest.raises(InputError) as caught:
        concluded(loaded, [measured(1e-6, True, "variant", **{name: 0.3})])
    assert caught.value.code is Code.HPARAMS_INVALID
    assert name in caught.value.message


def test_what_is_written_loads_as_calibrated_and_changes_nothing_else(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    copy = tmp_path / "hparams.json"
    copy.write_bytes(loaded.path.read_bytes())
    write(copy, *concluded(loaded, [measured(1e-7)]))
    before, after = (json.loads(path.read_bytes()) for path in (loaded.path, copy))
    assert load(copy).hparams.calibrated
    assert {k: v for k, v in before.items() if k != "verify"} == {
        k: v for k, v in after.items() if k != "verify"
    }


def test_a_changed_benchmark_is_no_longer_calibrated(loaded: LoadedHparams, tmp_path: Path) -> None:
    copy = tmp_path / "hparams.json"
    copy.write_bytes(loaded.path.read_bytes())
    write(copy, *concluded(loaded, [measured(1e-7)]))
    raw = json.loads(copy.read_bytes())
    raw["optimizer"]["lr"] = 0.2
    copy.write_text(json.dumps(raw))
    assert not load(copy).hparams.calibrated


def test_the_shipped_benchmark_is_calibrated(loaded: LoadedHparams) -> None:
    assert loaded.hparams.calibrated
