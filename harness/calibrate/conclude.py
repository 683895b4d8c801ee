"""Tolerances from noise, with their evidence, and into the hparams file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.rules import Calibration, CalibrationVariant, Fit, Tolerances
from harness.calibrate.evidence import Evidence
from harness.calibrate.tail import FOLDED, fit, usual
from harness.calibrate.variants import TIES
from harness.errors import Code, InputError
from harness.files import in_lines, write_whole
from harness.verify.metrics import NORMAL, exceeds
from harness.verify.rates import at_most

#: A tolerance is never below these, whatever little noise was measured: they reject every cheat that
#: we know of, and leave room for what a handful of runs need not contain (docs/tolerances.md).
FLOORS: Final = Tolerances(
    loss=1e-4,
    update_error=1e-3,
    tensor_update_error=0.02,
    slice_update_error=0.02,
    norm_ratio=1e-3,
    tensor_norm_ratio=0.02,
    step_weight=0.02,
    token_loss_shift=1e-5,
    token_group_shift=6.0,
    matched_filter=4.5,
)
#: Above these a benchmark cannot tell a cheat from noise: a step that is missing has weight 0.
CEILINGS: Final = {
    "update_error": 0.5,
    "tensor_update_error": 0.9,
    "slice_update_error": 0.9,
    "step_weight": 0.5,
}
#: Honest float32 runs without a flipped tie stay far below it; it leaves room for other machines' kernels.
STRICT_FLOOR: Final = 1e-4
#: Noise that is so many times below a floor is none.
RESOLUTION: Final = 100.0
#: Of honest float32 runs those in which a near tie flips, at most, however few this calibration has seen:
#: 2 of 100 were measured, and that is the upper bound at 95 % of it (docs/noise.md).
TIE_RATE: Final = 0.062


def conclude(
    loaded: LoadedHparams, evidence: Evidence, false_alarms: float
) -> tuple[Tolerances, Calibration]:
    """Tolerances that so many honest evaluations exceed, over all metrics, runs and means of one together.

    Raises InputError: BAD_ARGUMENT: too few runs; HPARAMS_INVALID: the benchmark cannot judge.
    """
    hparams = loaded.hparams
    counted = [variant for variant in evidence.variants if variant.counted]
    metrics = [
        name for name in Tolerances.model_fields if any(name in each.values for each in counted)
    ]
    runs = hparams.evaluation_runs
    averaged = _averaged(metrics, counted) if runs > 1 else []
    rate = false_alarms / (runs * len(metrics) + len(averaged))
    parted = _parted(counted, rate)
    fits = {name: _fit(name, parted, rate) for name in metrics}
    _check_sight(fits)
    floors = {name: floor for name in metrics if fits[name].bound <= (floor := _floor(name))}
    means = {
        name: _above(_floor_of_mean(name, runs), _fit(name, parted, rate, runs))
        for name in averaged
        if name in NORMAL or name not in floors
    }
    tolerances = Tolerances(
        **{name: floors[name] if name in floors else round_up(fits[name].bound) for name in metrics}
    )
    return tolerances, Calibration(
        date=evidence.date,
        torch=evidence.torch,
        transformers=evidence.transformers,
        device=evidence.device,
        false_alarms=false_alarms,
        runs=sum(variant.runs for variant in counted),
        floors=floors,
        fits=fits,
        strict_update_error=parted.strict,
        means={
            name: bound for name, bound in means.items() if bound.bound < getattr(tolerances, name)
        },
        variants=evidence.variants,
        benchmark_sha256=hparams.noise_sha256(),
    )


@dataclass(frozen=True)
class _Parted:
    """Runs in which no tie has flipped, and those in which one has, by itself or because it was forced.

    Attributes:
        flipped: where ties are not forced, as in bfloat16, none is told apart.
        tie_rate: of honest runs those that are of the second kind, at most.
        strict: what one of several honest runs stays below; None where ties are not forced.
    """

    plain: tuple[CalibrationVariant, ...]
    flipped: tuple[CalibrationVariant, ...] = ()
    tie_rate: float = 0.0
    strict: float | None = None


def _parted(counted: Sequence[CalibrationVariant], rate: float) -> _Parted:
    forced = [variant for variant in counted if variant.name == TIES]
    if not forced:
        return _Parted(tuple(counted))
    others = [variant for variant in counted if variant.name != TIES]
    # What is usual is found by medians: a flip that came by itself does not move it, and is told by it.
    limit = usual(_noise("update_error", others), rate, _least("update_error"))
    plain, flips = [], list[int]()
    for variant in others:
        quiet = [n for n, error in enumerate(variant.values["update_error"]) if error <= limit]
        plain.append(_of(variant, quiet))
        flips.append(variant.runs - len(quiet))
    runs = sum(variant.runs for variant in others)
    return _Parted(
        plain=tuple(plain),
        flipped=tuple(forced),
        tie_rate=max(TIE_RATE, at_most(sum(flips), runs)),
        strict=max(STRICT_FLOOR, round_up(limit)),
    )


def _averaged(metrics: Sequence[str], counted: Sequence[CalibrationVariant]) -> list[str]:
    """What is judged as a mean over runs too: nothing where one run has to be as near as float32 is."""
    if any(variant.name == TIES for variant in counted):
        return []
    return [name for name in metrics if name not in FOLDED]


def _above(floor: float, found: Fit) -> Fit:
    return found.model_copy(update={"bound": max(floor, found.bound)})


def _of(variant: CalibrationVariant, runs: Sequence[int]) -> CalibrationVariant:
    values = {name: tuple(each[n] for n in runs) for name, each in variant.values.items()}
    return variant.model_copy(update={"runs": len(runs), "values": values})


def _floor(metric: str) -> float:
    floor: float = getattr(FLOORS, metric)
    return floor


def _floor_of_mean(metric: str, runs: int) -> float:
    """Standard errors of a mean are smaller; of other noise a floor says that there is none."""
    return _floor(metric) / math.sqrt(runs) if metric in NORMAL else _floor(metric)


def _least(metric: str) -> float:
    return _floor(metric) / RESOLUTION


def _noise(metric: str, variants: Sequence[CalibrationVariant]) -> dict[str, tuple[float, ...]]:
    """Raises InputError(HPARAMS_INVALID): NaN, where steps cannot be told apart, or an infinite loss."""
    found = {each.name: each.values[metric] for each in variants if metric in each.values}
    if not all(math.isfinite(value) for values in found.values() for value in values):
        raise InputError(
            Code.HPARAMS_INVALID,
            f"{metric} of honest runs is not finite: the training diverges, or its steps are all alike",
        )
    return found


def _fit(metric: str, parted: _Parted, rate: float, mean_of: int = 1) -> Fit:
    """The larger bound: of runs as they are, or of the few in which a near tie flips."""
    least, plain = _least(metric), _noise(metric, parted.plain)
    if not parted.flipped:
        found = [fit(metric, plain, rate, least, mean_of)]
    else:
        flipped = _noise(metric, parted.flipped)
        found = [
            fit(metric, plain, rate / 2, least),
            fit(metric, flipped, rate / 2 / parted.tie_rate, least),
        ]
    return max(filter(None, found), key=lambda each: each.bound)


def _check_sight(fits: Mapping[str, Fit]) -> None:
    """Raises InputError(HPARAMS_INVALID): noise goes as far as cheats begin."""
    blind = [
        f"{name} would be {fits[name].bound:.2g}, and a cheat shows at {ceiling:g} ({_told(fits[name])})"
        for name, ceiling in CEILINGS.items()
        if name in fits and exceeds(fits[name].bound, ceiling)
    ]
    if blind:
        raise InputError(
            Code.HPARAMS_INVALID,
            "honest noise is too large for this benchmark to judge anything; measure more runs, take "
            "fewer steps or float32 compute, or allow more false alarms:\n" + "\n".join(blind),
        )


def _told(found: Fit) -> str:
    """What a fit rests on, in words."""
    spread = f"with a spread of {found.spread:.2g} of the logarithm"
    if found.tail == "exponential":
        spread = f"{found.spread:.2g} above it in the upper half"
    return f"{found.variant}, {found.runs} runs: {found.center:.2g} in the middle, {spread}"


def round_up(value: float) -> float:
    """Two significant digits, upwards."""
    if not value:
        return 0.0
    digits = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.ceil(value / digits) * digits:.2g}")


def write(path: Path, tolerances: Tolerances, calibration: Calibration) -> None:
    """Put the outcome into the hparams file; everything else in it stays as it was."""
    document = json.loads(path.read_bytes())
    document["verify"]["tolerances"] = tolerances.model_dump(exclude_none=True)
    document["verify"]["calibration"] = calibration.model_dump(mode="json")
    write_whole(path, in_lines(document) + "\n")
