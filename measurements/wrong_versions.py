"""Which check finds which wrong version in which numeric regime, as docs/noise.md shows it.

    python -m measurements.wrong_versions [--repeats N] [--regime NAME ...] [NAME ...]

One run each of the files in tests/submissions/wrong/. A cell holds the check that is most over its
tolerance, how many times, and how many checks reject. With `--repeats` it says in how many of N runs on
fresh data the file was rejected, and how far over its tolerance the worst check was in the least and the
most clear of them. A file is judged where there is something wrong with it: one about weight decay or
clipping with AdamW only. Not here is what needs a benchmark of its own
(profiles/embedded-idle-experts.json); tests/test_strategies.py judges it.
"""

import argparse
import re
from pathlib import Path

from harness.errors import Verdict
from harness.result import EvaluationResult
from harness.verify.findings import Severity
from measurements.strategies import REGIMES, judge, used

ROOT = Path(__file__).resolve().parent.parent
WRONG = ROOT / "tests" / "submissions" / "wrong"


def cell(result: EvaluationResult) -> str:
    if result.verdict is not Verdict.REJECTED:
        return f"**{result.verdict}**"
    found = [f for run in result.runs for f in run.findings if f.severity is Severity.REJECTS]
    if not found:
        return f"{result.code}: {result.message}"  # it failed before there was anything to compare
    times = {f.check: f.measured / f.allowed for f in found if f.measured and f.allowed}
    if not times:
        return ", ".join(f.check for f in found)
    worst = max(times, key=lambda check: times[check])
    return f"{worst} {times[worst]:.2g}×, {len(found)} in all"


def tell(file: Path, regime: str, repeats: int) -> str:
    results = [judge(file, regime) for _ in range(repeats)]
    if repeats == 1:
        return cell(results[0])
    found = sum(result.verdict is Verdict.REJECTED for result in results)
    # Below 1: what found it is exact, and has no tolerance ("still").
    over = [used(result) for result in results]
    return f"{found} of {repeats}, {min(over):.2g}× to {max(over):.2g}×"


def is_wrong_in(file: Path, regime: str) -> bool:
    """The first line names a profile where a mistake shows in that one alone."""
    named = re.search(r" profile=([\w-]+) ", file.read_text(encoding="utf-8").splitlines()[0])
    return named is None or regime.startswith(named[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="of wrong versions; default: all")
    parser.add_argument("--regime", action="append", choices=REGIMES, help="default: all")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; default: 1")
    options = parser.parse_args()
    regimes = options.regime or list(REGIMES)
    print("| wrong version | " + " | ".join(REGIMES[regime] for regime in regimes) + " |")
    print("|---|" + "---|" * len(regimes))
    for file in sorted(WRONG.glob("*.py")):
        if options.names and file.stem not in options.names:
            continue
        mine = [regime for regime in regimes if is_wrong_in(file, regime)]
        cells = [tell(file, r, options.repeats) if r in mine else "" for r in regimes]
        if mine:
            print(f"| `{file.stem}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
