"""Runs of every honest variant on the same challenges, and what each of them measured."""

from collections.abc import Callable, Sequence

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.rules import CalibrationVariant
from harness.benchmark.snapshot import Snapshot
from harness.calibrate.evidence import Evidence, pooled
from harness.calibrate.variants import NamedVariant, variants
from harness.lab import Lab
from harness.phases import OnProgress
from harness.reference.task import default_variant
from harness.sandbox import Sandbox
from harness.verify.metrics import RunMetrics


def measure(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    runs: int,
    progress: OnProgress,
    keep: Callable[[Evidence], None],
    before: Evidence,
    only: str = "",
) -> Evidence:
    """Measure every variant on `runs` challenges of the greatest length.

    Args:
        keep: is given all that is known, after every variant: this takes long, and may be ended.
        before: what was measured earlier, to be added to.
        only: measure the variants whose names contain this.

    Raises JudgeError: a reference failed.
    """
    hparams, known = loaded.hparams, before
    base = default_variant(hparams, hparams.world.size)
    with Lab.opened(hparams, snapshot, sandbox, runs) as lab:
        progress(f"reference: {runs} runs of {hparams.steps.max} steps")
        reference = lab.reference(base)
        wanted = [
            v for v in variants(base, hparams.global_batch, hparams.numerics) if only in v.name
        ]
        for number, named in enumerate(wanted):
            found = lab.measure(reference, lab.run(f"variant{number}", named.variant))
            lab.discard(f"variant{number}")
            variant = of_runs(named, [each.metrics for each in found])
            known = pooled(known, variant)
            progress(f"{named.name}: update error {variant.worst['update_error']:.2e}")
            keep(known)
    return known


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
