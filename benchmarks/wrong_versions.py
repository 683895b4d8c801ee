"""Which check finds which wrong version in which numeric regime, as docs/tolerances.md shows it.

    python benchmarks/wrong_versions.py [--regime NAME ...] [NAME ...]

One run each of the files in tests/submissions/wrong/. A cell holds the checks that reject, and behind
each how many times its tolerance was measured.
"""

import argparse
from pathlib import Path

from strategies import REGIMES, hparams_file

from harness.errors import Verdict
from harness.result import EvaluationResult
from harness.simulate import judge_file
from harness.submission import read
from harness.verify.findings import Severity

ROOT = Path(__file__).resolve().parent.parent
WRONG = ROOT / "tests" / "submissions" / "wrong"


def cell(result: EvaluationResult) -> str:
    if result.verdict is not Verdict.REJECTED:
        return f"**{result.verdict}**"
    found = [f for run in result.runs for f in run.findings if f.severity is Severity.REJECTS]
    if not found:
        return result.code.value  # it failed before there was anything to compare
    return ", ".join(
        f"{f.check} {f.measured / f.allowed:.2g}×" if f.measured and f.allowed else f.check
        for f in found
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="of wrong versions; default: all")
    parser.add_argument("--regime", action="append", choices=REGIMES, help="default: all")
    options = parser.parse_args()
    regimes = options.regime or list(REGIMES)
    print("| wrong version | " + " | ".join(regimes) + " |")
    print("|---|" + "---|" * len(regimes))
    for file in sorted(WRONG.glob("*.py")):
        if options.names and file.stem not in options.names:
            continue
        world_size = read(file).strategy.world_size or 2
        cells = [
            cell(
                judge_file(
                    file,
                    hparams=hparams_file(regime),
                    world_size=world_size,
                    runs=1,
                    quiet=True,
                )
            )
            for regime in regimes
        ]
        print(f"| `{file.stem}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
