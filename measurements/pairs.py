"""How often the paired test calls equal programs different, and what it sees, as docs/scoring.md shows it.

    python measurements/pairs.py [--budget N] [--confidence C] [--repeats N]
    python measurements/pairs.py --file submissions/train_single.py [--budget N] [--world N]

Without a file it simulates. The noise of a pair is that of log(ratio), as two runs of the same file one
after the other have it, in five shapes; effects are in units of its standard deviation. Each method decides
by its own lower bound, and looks where the plan says; only `any look` looks after every pair from
the fourth on, as somebody would who stops when it suits.

With a file it runs that file against itself on this machine and prints the noise.
"""

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.board import paired
from harness.board.paired import MIN_PAIRS, Look, interval, looks, student_quantile

Floats = npt.NDArray[np.float64]
Bound = Callable[[Floats, float], float]
DRAW = np.random.default_rng(11)


def normal(size: tuple[int, int]) -> Floats:
    return DRAW.normal(size=size)


def heavy(size: tuple[int, int]) -> Floats:
    """Of either run Student's t with 3 degrees of freedom."""
    return DRAW.standard_t(3, size) - DRAW.standard_t(3, size)


def slow_runs(size: tuple[int, int]) -> Floats:
    """One run in ten is slow, by much more than runs usually differ."""

    def run() -> Floats:
        usual = 0.3 * DRAW.normal(size=size)
        return np.asarray(usual + (DRAW.random(size) < 0.1) * DRAW.exponential(5.0, size))

    return run() - run()


def drift(size: tuple[int, int]) -> Floats:
    """The machine gets slower from run to run; who runs first changes."""
    turn = np.where(np.arange(size[1]) % 2 == 0, 1.0, -1.0)
    return DRAW.normal(size=size) + turn


def skewed(size: tuple[int, int]) -> Floats:
    """One file is slow now and then, the other never: no such noise of one program with itself."""
    return 1.0 - DRAW.exponential(1.0, size)


NOISES = {
    "normal": normal,
    "heavy": heavy,
    "slow runs": slow_runs,
    "drift": drift,
    "skewed": skewed,
}


def percentile(logs: Floats, alpha: float) -> float:
    """The usual bootstrap."""
    chosen = DRAW.integers(0, len(logs), (paired.RESAMPLES, len(logs)))
    return float(np.quantile(logs[chosen].mean(axis=1), alpha))


def student(logs: Floats, alpha: float) -> float:
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return float(logs.mean()) - student_quantile(1 - alpha, len(logs) - 1) * error


def ours(logs: Floats, alpha: float) -> float:
    low = interval(np.exp(logs), alpha).low
    return math.log(low) if low > 0 else -math.inf


def rate(bound: Bound, samples: Floats, at: Iterable[Look]) -> tuple[float, float]:
    """How often the bound is above 0 at one of the looks, and how many pairs that took on average."""
    planned = list(at)
    shown, spent = 0, 0
    for logs in samples:
        for look in planned:
            if bound(logs[: look.pairs], look.alpha) > 0:
                shown += 1
                break
        spent += look.pairs
    return shown / len(samples), spent / len(samples)


def simulate(budget: int, confidence: float, repeats: int) -> None:
    plan = looks(budget, confidence)
    anywhere = [Look(pairs, 1 - confidence) for pairs in range(MIN_PAIRS, budget + 1)]
    methods: dict[str, tuple[Bound, Iterable[Look]]] = {
        "percentile, any look": (percentile, anywhere),
        "percentile": (percentile, plan),
        "Student": (student, plan),
        "ours": (ours, plan),
    }
    print(f"budget {budget}, looks " + ", ".join(f"{k.pairs} ({k.alpha:.3g})" for k in plan))
    print(f"\nfalse alarms, {1 - confidence:.0%} allowed; {repeats} repeats")
    print("| noise | " + " | ".join(methods) + " |")
    print("|---|" + "---|" * len(methods))
    for name, noise in NOISES.items():
        samples = noise((repeats, budget))
        rates = (rate(bound, samples, at)[0] for bound, at in methods.values())
        print(f"| {name} | " + " | ".join(f"{found:.1%}" for found in rates) + " |", flush=True)
    print("\nhow often a difference is shown, and after how many pairs (ours, normal noise)")
    print("| effect in standard deviations | shown | pairs |\n|---|---|---|")
    for effect in (0.5, 1.0, 1.5, 2.0, 3.0):
        found, spent = rate(ours, normal((repeats, budget)) + effect, plan)
        print(f"| {effect:g} | {found:.0%} | {spent:.1f} |", flush=True)


def measure(file: Path, budget: int, world: int | None) -> None:
    """The noise of one file against itself on this machine."""
    from harness.api import judge_file
    from harness.board.pairs import Pair, Plan, compare

    def tell(pair: Pair) -> None:
        print(
            f"{pair.contender_tflops:.4g} {pair.leader_tflops:.4g} TFLOP/s {pair.ratio:.4f}",
            flush=True,
        )

    plan = Plan(pairs=budget, confidence=0.999)  # so that it goes on to the end
    found = compare(lambda side: judge_file(file, world_size=world, runs=1, quiet=True), plan, tell)
    logs = np.log([pair.ratio for pair in found.pairs])
    deviation = logs.std(ddof=1) if len(logs) > 1 else math.nan
    print(f"{len(logs)} pairs, ratio {found.ratio:.4f}, standard deviation {deviation:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--budget", type=int, default=10, help="pairs; default: 10")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument(
        "--repeats", type=int, default=4000, help="simulated comparisons of each cell"
    )
    parser.add_argument("--file", type=Path, help="run this one against itself")
    parser.add_argument("--world", type=int, help="ranks, with --file")
    options = parser.parse_args()
    if options.file is not None:
        measure(options.file, options.budget, options.world)
    else:
        paired.RESAMPLES = 2_000  # enough for rates, and five times as fast
        simulate(options.budget, options.confidence, options.repeats)


if __name__ == "__main__":
    main()
