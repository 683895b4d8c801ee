"""How far runs go along directions of approximations, and what weighing brings (docs/tolerances.md).

    python -m measurements.directions [--runs N] [--regime NAME ...]

Of each run the direction along which it goes furthest, in standard errors: as the judge weighs the sampled
weights and the steps (`harness/verify/filters.py`), and as if all of them counted alike. An honest run
stays where a few normal variables would; what is left out is as little as is barely worth it.
"""

import argparse
import statistics
from collections.abc import Iterator
from typing import Final

from harness.api import ready_snapshot
from harness.benchmark.hparams import LoadedHparams, load
from harness.calibrate.variants import variants
from harness.lab import Lab
from harness.power.sweep import cheated
from harness.reference.cheats.families import Cheat, Family
from harness.reference.outcome import ReferenceRun
from harness.reference.task import Variant, default_variant
from harness.report import ProgressDisplay
from harness.sandbox import choose
from harness.verify.filters import beside, look_along, span_of, z_of
from measurements.strategies import REGIMES, hparams_file

HONEST: Final = ("world 2, 2 micro-batches, all eager", "float32 compute")
LEFT_OUT: Final[dict[Family, float]] = {
    "last_positions": 0.004,
    "lowest_loss_tokens": 0.05,
    "top_1_backward": 0.02,
    "expert_gradients": 0.02,
    "attention_gradients": 0.02,
    "layer_gradients": 0.02,
}


def looked_at(loaded: LoadedHparams) -> dict[str, Variant]:
    """Honest runs, and such as leave out little."""
    hparams = loaded.hparams
    base = default_variant(hparams, hparams.world.size)
    known = variants(base, hparams.global_batch, hparams.numerics)
    return {each.name: each.variant for each in known if each.name in HONEST} | {
        f"{family} {strength:g}": cheated(base, (Cheat(family=family, strength=strength),))
        for family, strength in LEFT_OUT.items()
    }


def alike(truth: ReferenceRun, run: ReferenceRun) -> float:
    """The largest z of any direction if all sampled weights count alike, and all steps."""
    span = span_of(truth.step_updates)
    off = beside(run.final - truth.final, span)
    return max(z_of(off * beside(each.sum(axis=0), span)) for each in truth.directions.values())


def furthest(loaded: LoadedHparams, runs: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """For each kind of run the largest z of every one, as the judge has it and if all count alike."""
    hparams = loaded.hparams
    with ProgressDisplay() as progress:
        snapshot = ready_snapshot(loaded, None, progress)
        with Lab.opened(hparams, snapshot, choose("auto"), runs) as lab:
            reference = lab.reference(default_variant(hparams, hparams.world.size))
            for name, variant in looked_at(loaded).items():
                found = lab.run("variant", variant)
                pairs = list(zip(reference, found, strict=True))
                judged = [
                    look_along(truth.directions, truth.step_updates, run.final - truth.final)[0].z
                    for truth, run in pairs
                ]
                yield name, judged, [alike(*pair) for pair in pairs]
                lab.discard("variant")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=8)
    in_bf16 = [regime for regime in REGIMES if load(hparams_file(regime)).hparams.filter_steps]
    parser.add_argument("--regime", action="append", choices=in_bf16, help="default: all")
    options = parser.parse_args()
    print(f"largest z of {options.runs} runs: median (least … most)\n")
    print("| regime | run | as judged | all alike |\n|---|---|---|---|")
    for regime in options.regime or in_bf16:
        for name, *both in furthest(load(hparams_file(regime)), options.runs):
            cells = [f"{statistics.median(z):.1f} ({min(z):.1f} … {max(z):.1f})" for z in both]
            print(f"| {REGIMES[regime]} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
