"""Every exemplary train file in every numeric regime, as the README shows it.

    python measurements/strategies.py [--regime NAME ...] [NAME ...]

A cell is one evaluation: the largest update error of its runs, and the smallest and the largest weight of a
step. "Of tolerance" is what the check nearest to its tolerance came to, in the order of the regimes.
Tokens/s (of the median run) of several ranks on two cores compare the overhead of the strategies, and say
nothing about how they scale.
"""

import argparse
import math
from pathlib import Path
from statistics import median

from harness.api import judge_file
from harness.errors import Verdict
from harness.result import EvaluationResult
from harness.submission.read import read

ROOT = Path(__file__).resolve().parent.parent
#: Profiles, and what a reader calls them.
REGIMES = {
    "hparams": "SGD, fp32",
    "embedded-bf16": "SGD, bf16",
    "embedded-decay": "SGD with decay, fp32",
    "embedded-adamw": "AdamW, fp32",
    "embedded-adamw-bf16": "AdamW, bf16",
    "embedded-trained": "AdamW, bf16, trained start",
}


def hparams_file(regime: str) -> Path:
    return ROOT / "hparams.json" if regime == "hparams" else ROOT / "profiles" / f"{regime}.json"


def judge(file: Path, regime: str) -> EvaluationResult:
    """With as many ranks as the file declares; a legacy string takes the benchmark's two."""
    declared = read(file).strategy.world_size
    return judge_file(file, hparams=hparams_file(regime), world_size=declared or 2, quiet=True)


def cell(result: EvaluationResult) -> str:
    if not result.runs:
        return f"**{result.verdict}: {result.code}**"
    error = max(run.measured("update_error") or 0.0 for run in result.runs)
    weights = [
        weight for run in result.runs for weight in run.step_weights if not math.isnan(weight)
    ]
    span = f"{min(weights):.3f}…{max(weights):.3f}" if weights else "inconclusive"
    verdict = "" if result.verdict is Verdict.ACCEPTED else f"**{result.verdict}** "
    return f"{verdict}{error:.0e}, {span}"


def used(result: EvaluationResult) -> float:
    """The largest part of a tolerance that any check came to; above 1 it rejects, nan without a run."""
    parts = [m.measured / m.allowed for run in result.runs for m in run.metrics]
    return max(parts, default=math.nan)


def row(file: Path, regimes: list[str]) -> str:
    results = [judge(file, regime) for regime in regimes]
    speeds = [
        f"{median(run.tokens_per_second for run in result.runs):,.0f}" if result.runs else "–"
        for result in results
    ]
    cells = [cell(result) for result in results]
    margins = " / ".join(f"{used(result):.2f}" for result in results)
    named = [f"`{file.stem}`", str(results[0].world_size), *cells, margins, " / ".join(speeds)]
    return "| " + " | ".join(named) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="of train files; default: all")
    parser.add_argument("--regime", action="append", choices=REGIMES, help="default: all")
    options = parser.parse_args()
    regimes = options.regime or list(REGIMES)
    print("| train file | ranks | " + " | ".join(REGIMES[r] for r in regimes), end="")
    print(" | of tolerance | tokens/s |")
    print("|---" * (len(regimes) + 4) + "|")
    for file in sorted((ROOT / "submissions").glob("train_*.py")):
        if not options.names or file.stem in options.names:
            print(row(file, regimes), flush=True)


if __name__ == "__main__":
    main()
