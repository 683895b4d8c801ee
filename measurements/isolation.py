"""What isolation costs: each level against `none`, interleaved in one run.

    python measurements/isolation.py [--repeats 5] [--runs 3] [--world 2] [FILE]

Every repeat launches the same train file once at each level, in another order each time, and compares
within the repeat, so that what else the machine does meets all levels alike. Nothing is verified here:
measured are the seconds from the start to the READY of the last rank, and the tokens per second of the
judge's own clock.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness import machine
from harness.api import ready_snapshot
from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.snapshot import Snapshot
from harness.phases import PhaseName, Phases
from harness.report import ProgressDisplay
from harness.sandbox import Level, Sandbox, probe
from harness.submission.read import read
from harness.timed.observed import Observed
from harness.timed.run import TimedSetup, run_submission
from harness.timed.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Launch:
    """One launch of the train file.

    Attributes:
        start_up: seconds from the start to READY.
        tokens_per_second: median of its timed runs.
    """

    start_up: float
    tokens_per_second: float


@dataclass(frozen=True)
class Case:
    """What is launched, whatever the level."""

    file: Path
    loaded: LoadedHparams
    snapshot: Snapshot
    world_size: int
    runs: int


def launch(case: Case, level: Level) -> Launch:
    hparams = case.loaded.hparams
    setup = TimedSetup(
        submission=read(case.file, case.world_size),
        hparams=hparams,
        snapshot=case.snapshot,
        sandbox=Sandbox(level),
        world_size=case.world_size,
        device=machine.pick_device(hparams.world.device, case.world_size),
        runs=case.runs,
    )
    ready: list[float] = []

    def note(name: PhaseName, detail: str) -> None:
        if name is PhaseName.TIMED:
            ready.append(time.perf_counter())

    with Workspace() as workspace:
        began = time.perf_counter()
        timed_runs = run_submission(setup, workspace, Phases(note), Observed())
    return Launch(
        start_up=ready[0] - began,
        tokens_per_second=median(
            timed.challenge.token_count / timed.seconds for timed in timed_runs
        ),
    )


def measure(case: Case, levels: Sequence[Level], repeats: int) -> list[dict[Level, Launch]]:
    """One launch of each level in every repeat."""
    found = []
    with ProgressDisplay() as progress:
        for level in levels:
            launch(case, level)  # the first of a level finds nothing in the page cache
        for repeat in range(repeats):
            turn = repeat % len(levels)
            order = [*levels[turn:], *levels[:turn]]
            found.append({level: launch(case, level) for level in order})
            progress.line(f"{repeat + 1} of {repeats}")
    return found


def row(level: Level, repeats: Sequence[dict[Level, Launch]]) -> str:
    """Medians over the repeats; of the paired differences and ratios the range too."""
    start_up = median(each[level].start_up for each in repeats)
    more = [each[level].start_up - each[Level.NONE].start_up for each in repeats]
    ratios = [
        each[level].tokens_per_second / each[Level.NONE].tokens_per_second for each in repeats
    ]
    speed = median(each[level].tokens_per_second for each in repeats)
    return (
        f"| `{level}` | {start_up:.2f} | {median(more):+.2f} ({min(more):+.2f} … {max(more):+.2f}) "
        f"| {speed:,.0f} | {median(ratios):.3f} ({min(ratios):.3f} … {max(ratios):.3f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "submissions" / "train_ddp.py")
    parser.add_argument("--hparams", type=Path, default=ROOT / "hparams.json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each launch")
    parser.add_argument("--world", type=int, default=2)
    options = parser.parse_args()
    loaded = load(options.hparams)
    with ProgressDisplay() as progress:
        snapshot = ready_snapshot(loaded, None, progress)
    case = Case(options.file, loaded, snapshot, options.world, options.runs)
    levels = [each.level for each in probe() if each.available]
    repeats = measure(case, levels, options.repeats)
    print("| level | start-up, s | over `none`, s | tokens/s | of `none` |")
    print("|---|---|---|---|---|")
    for level in levels:
        print(row(level, repeats))


if __name__ == "__main__":
    main()
