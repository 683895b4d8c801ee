"""How often an honest run would be rejected: fresh challenges, judged with the shipped tolerances.

    python measurements/honest_noise.py [--runs 100] [--hparams hparams.json] [--fleet HOST:PORT]

Every challenge is trained twice by the trusted loop, once as the reference and once in an honest
variant that differs in everything at a time (two ranks, two micro-batches, eager attention, eager
experts), and the second is judged like a submission; runs make evaluations in turn. Nothing here was seen
by `validator calibrate`. With `--fleet` all nodes measure; from them figures come with three digits.
"""

import argparse
import math
from pathlib import Path

import numpy as np

from harness.api import ready_snapshot
from harness.benchmark.hparams import LoadedHparams, load
from harness.calibrate.variants import variants
from harness.cli.fleet import on_fleet
from harness.lab import Lab
from harness.power.detection import Rules, rejected_together
from harness.power.measured import RunFigures
from harness.reference.task import default_variant
from harness.report import ProgressDisplay
from harness.sandbox import choose
from harness.verify.metrics import RunMetrics

RUNS_PER_LAUNCH = 20
VARIANT = "world 2, 2 micro-batches, all eager"
#: With float32 compute an update error above this is not rounding but a token that went to another expert.
FLIP = 1e-5


def measure(loaded: LoadedHparams, runs: int) -> list[RunMetrics]:
    """Metrics of `runs` honest runs on fresh challenges."""
    hparams = loaded.hparams
    base = default_variant(hparams, hparams.world.size)
    known = variants(base, hparams.global_batch, hparams.numerics)
    honest = next(each.variant for each in known if each.name == VARIANT)
    found: list[RunMetrics] = []
    with ProgressDisplay() as progress:
        snapshot = ready_snapshot(loaded, None, progress)
        sandbox = choose("auto")
        while len(found) < runs:
            count = min(RUNS_PER_LAUNCH, runs - len(found))
            with Lab.opened(hparams, snapshot, sandbox, count) as lab:
                measured = lab.measure(lab.reference(base), lab.run("honest", honest))
            found += [each.metrics for each in measured]
            progress.line(f"{len(found)} of {runs}")
    return found


def measure_on_fleet(
    loaded: LoadedHparams, runs: int, address: str, hardware: str
) -> list[RunMetrics]:
    """The same on all nodes of a fleet: what they measure for a calibration, of that variant alone."""
    with on_fleet(address, hardware) as there:
        found = there.calibrate(loaded, None, lambda so_far: None, runs, VARIANT)
    (measured,) = (each for each in found.variants if each.name == VARIANT)
    return [
        RunMetrics(**{name: values[run] for name, values in measured.values.items()})
        for run in range(measured.runs)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--hparams", type=Path, default=Path("hparams.json"))
    parser.add_argument("--fleet", metavar="HOST:PORT", help="measure on all nodes of a fleet")
    parser.add_argument("--hardware", default="", help="with --fleet: the nodes' hardware class")
    options = parser.parse_args()
    loaded = load(options.hparams)
    hparams, tolerances = loaded.hparams, loaded.hparams.verify.tolerances
    metrics = (
        measure(loaded, options.runs)
        if options.fleet is None
        else measure_on_fleet(loaded, options.runs, options.fleet, options.hardware)
    )

    print(f"{'metric':<22}{'median':>10}{'worst':>10}{'allowed':>10}{'over':>6}")
    rejected: set[int] = set()
    for name in RunMetrics.model_fields:
        values = [getattr(one, name) for one in metrics]
        allowed = getattr(tolerances, name)
        if allowed is None or None in values:
            continue
        over = {i for i, value in enumerate(values) if not value <= allowed}
        rejected |= over
        worst = max(values, key=lambda v: math.inf if math.isnan(v) else v)
        print(f"{name:<22}{np.median(values):>10.1e}{worst:>10.1e}{allowed:>10.1e}{len(over):>6}")
    print(f"{len(rejected)} of {len(metrics)} honest runs rejected")
    runs = [RunFigures(one.model_dump(exclude_none=True)) for one in metrics]
    together = rejected_together(runs, Rules.of(hparams))
    print(f"{together.found} of {together.of} evaluations rejected by their runs together")
    if hparams.numerics.compute_dtype == "float32":
        print(f"{sum(one.update_error > FLIP for one in metrics)} had a near tie flipped")


if __name__ == "__main__":
    main()
