"""Runs of every honest variant on the same challenges, and what each of them measured."""

from collections.abc import Sequence

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.rules import Calibration, CalibrationVariant, Tolerances
from harness.benchmark.snapshot import Snapshot
from harness.calibrate.conclude import conclude
from harness.calibrate.variants import NamedVariant, variants
from harness.errors import Code, InputError
from harness.lab import Lab
from harness.phases import OnProgress
from harness.reference.task import default_variant
from harness.sandbox import Sandbox
from harness.verify.metrics import RunMetrics


def calibrate(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    runs: int,
    false_alarms: float,
    progress: OnProgress,
    *,
    only: str = "",
    add: bool = False,
) -> tuple[Tolerances, Calibration]:
    """Measure every variant on `runs` challenges of the greatest length.

    Args:
        false_alarms: part of honest evaluations that may be rejected.
        only: measure the variants whose names contain this.
        add: to what the benchmark's calibration has already measured.

    Raises:
        JudgeError: a reference failed.
        InputError: the noise is so large that the benchmark cannot judge.
    """
    hparams = loaded.hparams
    base = default_variant(hparams, hparams.world.size)
    with Lab.opened(hparams, snapshot, sandbox, runs) as lab:
        progress(f"reference: {runs} runs of {hparams.steps.max} steps")
        reference = lab.reference(base)
        measured: list[CalibrationVariant] = []
        wanted = [
            v for v in variants(base, hparams.global_batch, hparams.numerics) if only in v.name
        ]
        for number, named in enumerate(wanted):
            found = lab.measure(reference, lab.run(f"variant{number}", named.variant))
            lab.discard(f"variant{number}")
            variant = of_runs(named, [each.metrics for each in found])
            measured = pooled(measured, [variant])
            progress(f"{named.name}: update error {variant.worst['update_error']:.2e}")
    known = hparams.verify.calibration if add and hparams.calibrated else None
    everything = measured if known is None else pooled(known.variants, measured)
    return conclude(loaded, everything, false_alarms, lab.device)


def conclude_again(loaded: LoadedHparams, false_alarms: float) -> tuple[Tolerances, Calibration]:
    """What follows from the runs that a benchmark's calibration holds, by today's rule.

    Raises InputError: nothing was measured of this benchmark; as `conclude` does.
    """
    known = loaded.hparams.verify.calibration
    if known is None or not loaded.hparams.calibrated:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"nothing was measured of {loaded.hparams.name} as it is: calibrate it",
        )
    tolerances, calibration = conclude(loaded, pooled(known.variants, []), false_alarms, "cpu")
    measured_on = {
        name: getattr(known, name) for name in ("date", "torch", "transformers", "device")
    }
    return tolerances, calibration.model_copy(update=measured_on)


def of_runs(named: NamedVariant, metrics: Sequence[RunMetrics]) -> CalibrationVariant:
    """What was measured of one variant."""
    runs = [each.model_dump(exclude_none=True) for each in metrics]
    values = {name: tuple(_short(run[name]) for run in runs) for name in runs[0]}
    return CalibrationVariant(
        name=named.name,
        runs=len(runs),
        counted=named.counted,
        worst={name: max(found) for name, found in values.items()},
        values=values,
    )


def _short(value: float) -> float:
    """As many digits as noise deserves: hparams hold hundreds of them."""
    return float(f"{value:.3g}")


def pooled(
    known: Sequence[CalibrationVariant], new: Sequence[CalibrationVariant]
) -> list[CalibrationVariant]:
    """Every variant with the runs of both.

    Raises InputError(BAD_ARGUMENT): of what is known only the worst was written down.
    """
    found = {variant.name: variant for variant in known}
    if not all(variant.values for variant in known):
        raise InputError(
            Code.BAD_ARGUMENT,
            "this benchmark was calibrated before every run was written down: measure all of it anew, "
            "without --add",
        )
    for variant in new:
        before = found.get(variant.name)
        if before is not None:
            values = {
                name: (*before.values.get(name, ()), *variant.values.get(name, ()))
                for name in {**before.values, **variant.values}
            }
            variant = variant.model_copy(
                update={
                    "runs": before.runs + variant.runs,
                    "worst": {name: max(each) for name, each in values.items()},
                    "values": values,
                }
            )
        found[variant.name] = variant
    return list(found.values())
