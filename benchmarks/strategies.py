"""Every exemplary train file in every numeric regime, as the README shows it.

    python benchmarks/strategies.py [--regime NAME ...] [NAME ...]

Each row is one `validator run`: the worst over its runs. Tokens/s of several ranks on two cores compare
the overhead of the strategies, and say nothing about how they scale.
"""

import argparse
import math
from pathlib import Path

from harness.result import EvaluationResult
from harness.simulate import judge_file
from harness.submission import read

ROOT = Path(__file__).resolve().parent.parent
REGIMES = ("hparams", "embedded-bf16", "embedded-adamw", "embedded-adamw-bf16")


def hparams_file(regime: str) -> Path:
    return ROOT / "hparams.json" if regime == "hparams" else ROOT / "profiles" / f"{regime}.json"


def judge(file: Path, regime: str) -> EvaluationResult:
    """With as many ranks as the file declares; a legacy string takes the benchmark's two."""
    declared = read(file).strategy.world_size
    return judge_file(
        file, hparams=hparams_file(regime), world_size=declared or 2, runs=1, quiet=True
    )


def row(file: Path, regime: str) -> str:
    result = judge(file, regime)
    if not result.runs:
        return f"| `{file.stem}` | {regime} | {result.world_size} | {result.verdict} | | | | |"
    run = result.runs[0]
    metrics = {metric.name: metric.measured for metric in run.metrics}
    weights = [weight for weight in run.step_weights if not math.isnan(weight)]
    span = f"{min(weights):.4f} … {max(weights):.4f}" if weights else "inconclusive"
    return (
        f"| `{file.stem}` | {regime} | {result.world_size} | {result.verdict} "
        f"| {metrics['update_error']:.1e} | {metrics['tensor_update_error']:.1e} | {span} "
        f"| {run.tokens_per_second:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="of train files; default: all")
    parser.add_argument("--regime", action="append", choices=REGIMES, help="default: all")
    options = parser.parse_args()
    files = sorted((ROOT / "submissions").glob("train_*.py"))
    chosen = [file for file in files if not options.names or file.stem in options.names]
    print(
        "| file | benchmark | ranks | verdict | update error | worst tensor | step weights | tokens/s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for regime in options.regime or REGIMES:
        for file in chosen:
            print(row(file, regime), flush=True)


if __name__ == "__main__":
    main()
