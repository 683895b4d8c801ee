"""How far honest training turns the update of a single expert or embedding row (docs/noise.md).

    python -m measurements.row_projections [--runs N] [--regime NAME ...]

A slice counts as trained if its update, projected on the reference's, has a tenth of that one's length
(`LEAST_PROJECTION` in harness/verify/figures.py). Here is what the worst of honest runs has left: the
trusted loop in the ways in which honest submissions differ most, each on N fresh challenges.
"""

import argparse
import statistics
from collections.abc import Iterator
from typing import Final

from harness.api import ready_snapshot
from harness.benchmark.hparams import Hparams, LoadedHparams, load
from harness.calibrate.variants import TIES, variants
from harness.lab import Lab, Measured
from harness.reference.task import Variant, default_variant
from harness.report import ProgressDisplay
from harness.sandbox import choose
from harness.tensors.boxes import TensorKind
from harness.verify.figures import LEAST_PROJECTION
from measurements.strategies import REGIMES, hparams_file

#: What turns updates most: near ties that fall the other way, other kernels, another precision.
WORST: Final = (TIES, "world 2, 2 micro-batches, all eager", "float32 compute", "bfloat16 compute")
KINDS: Final = (TensorKind.EMBEDDING, TensorKind.EXPERTS)


def honest(hparams: Hparams) -> dict[str, Variant]:
    """Those of WORST that the benchmark counts as honest."""
    base = default_variant(hparams, hparams.world.size)
    known = variants(base, hparams.global_batch, hparams.numerics)
    return {each.name: each.variant for each in known if each.counted and each.name in WORST}


def least(loaded: LoadedHparams, runs: int) -> Iterator[tuple[str, list[list[float]]]]:
    """For each honest variant the least projection of every run, for each of KINDS."""
    hparams = loaded.hparams
    with ProgressDisplay() as progress:
        snapshot = ready_snapshot(loaded, None, progress)
        with Lab.opened(hparams, snapshot, choose("auto"), runs) as lab:
            reference = lab.reference(default_variant(hparams, hparams.world.size))
            for name, variant in honest(hparams).items():
                measured = lab.measure(reference, lab.run("variant", variant))
                lab.discard("variant")
                yield name, [[worst_of(each, kind) for each in measured] for kind in KINDS]


def worst_of(measured: Measured, kind: TensorKind) -> float:
    tensors = (tensor for state in measured.seen.comparisons for tensor in state.tensors)
    return min(tensor.least_projection for tensor in tensors if tensor.kind is kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--regime", action="append", choices=REGIMES, help="default: all")
    options = parser.parse_args()
    print(
        f"least projection of {options.runs} runs: worst, median; {LEAST_PROJECTION} is allowed\n"
    )
    print("| regime | variant | embedding rows | experts |\n|---|---|---|---|")
    for regime in options.regime or REGIMES:
        for name, found in least(load(hparams_file(regime)), options.runs):
            cells = [f"{min(values):.2f}, {statistics.median(values):.2f}" for values in found]
            print(f"| {REGIMES[regime]} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
