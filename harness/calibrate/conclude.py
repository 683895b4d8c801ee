"""Tolerances from noise, with their evidence, and into the hparams file."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from harness import machine
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.rules import Calibration, CalibrationVariant, Fit, Tolerances
from harness.calibrate.tail import fit, usual
from harness.calibrate.variants import TIES
from harness.errors import Code, InputError
from harness.files import write_whole
from harness.machine import Device
from harness.verify.metrics import exceeds

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
#: Of honest float32 runs those in which a near tie flips: measured were 2 of 100 (docs/tolerances.md), and
#: that is the upper bound at 95 % of it.
TIE_RATE: Final = 0.062


def conclude(
    loaded: LoadedHparams,
    measured: Sequence[CalibrationVariant],
    false_alarms: float,
    device: Device,
) -> tuple[Tolerances, Calibration]:
    """Tolerances that so many honest evaluations pass, over all metrics and runs of one together.

    Raises InputError: BAD_ARGUMENT: too few runs; HPARAMS_INVALID: the benchmark cannot judge.
    """
    hparams = loaded.hparams
    counted = [variant for variant in measured if variant.counted]
    metrics = [
        name for name in Tolerances.model_fields if any(name in each.values for each in counted)
    ]
    rate = false_alarms / hparams.evaluation_runs / len(metrics)
    fits = {name: found for name in metrics if (found := _fit(name, counted, rate)) is not None}
    _check_sight(fits)
    floors = {
        name: floor
        for name, floor in FLOORS.model_dump().items()
        if name in metrics and (name not in fits or fits[name].bound <= floor)
    }
    tolerances = Tolerances(
        **{name: floors[name] if name in floors else round_up(fits[name].bound) for name in metrics}
    )
    described = machine.describe(device, 1)
    return tolerances, Calibration(
        date=datetime.now(UTC).date().isoformat(),
        torch=described.torch,
        transformers=described.transformers,
        device=described.devices[0],
        false_alarms=false_alarms,
        runs=sum(variant.runs for variant in counted),
        floors=floors,
        fits=fits,
        strict_update_error=_strict(counted, rate),
        variants=tuple(measured),
        benchmark_sha256=hparams.noise_sha256(),
    )


def _noise(metric: str, variants: Sequence[CalibrationVariant]) -> dict[str, tuple[float, ...]]:
    """Raises InputError(HPARAMS_INVALID): NaN, where steps cannot be told apart, or an infinite loss."""
    found = {each.name: each.values[metric] for each in variants if metric in each.values}
    if not all(math.isfinite(value) for values in found.values() for value in values):
        raise InputError(
            Code.HPARAMS_INVALID,
            f"{metric} of honest runs is not finite: the training diverges, or its steps are all alike",
        )
    return found


def _fit(metric: str, counted: Sequence[CalibrationVariant], rate: float) -> Fit | None:
    """The larger bound: of runs as they are, or of the few in which a near tie flips."""
    ties = [each for each in counted if each.name == TIES]
    if not ties:
        return fit(metric, _noise(metric, counted), rate)
    others = [each for each in counted if each.name != TIES]
    found = (
        fit(metric, _noise(metric, others), rate / 2),
        fit(metric, _noise(metric, ties), rate / 2 / TIE_RATE),
    )
    return max(filter(None, found), key=lambda each: each.bound, default=None)


def _check_sight(fits: Mapping[str, Fit]) -> None:
    """Raises InputError(HPARAMS_INVALID): noise goes as far as cheats begin."""
    blind = [
        f"{name} would be {fits[name].bound:.2g} ({fits[name].variant}), and a cheat shows at {ceiling:g}"
        for name, ceiling in CEILINGS.items()
        if name in fits and exceeds(fits[name].bound, ceiling)
    ]
    if blind:
        raise InputError(
            Code.HPARAMS_INVALID,
            "honest noise is too large for this benchmark to judge anything; measure more runs, take "
            "fewer steps or float32 compute, or allow more false alarms:\n" + "\n".join(blind),
        )


def _strict(counted: Sequence[CalibrationVariant], rate: float) -> float | None:
    """What one of several honest runs stays below: the usual noise without forced ties.

    None where ties are not forced, since noise as large as a flip is in every run there.
    """
    if all(variant.name != TIES for variant in counted):
        return None
    others = [variant for variant in counted if variant.name != TIES]
    bound = usual(_noise("update_error", others), rate)
    return max(STRICT_FLOOR, round_up(bound or 0.0))


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
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
