"""Wall time of `validator run` against a bare `torchrun` of the same file, training as often in one launch.

    python -m measurements.overhead [--steps 80] [--repeats 3] [--level docker --level bubblewrap] [FILE]

Every repeat does all of it once: bare, then at each level without a bank and with one that was filled
before. Ratios are taken within a repeat. The CPU's peak, which an evaluation measures, is given, as that of
a GPU is from a table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.api import fill_bank, ready_snapshot
from harness.benchmark.challenge import draw
from harness.benchmark.hparams import LoadedHparams
from harness.report import ProgressDisplay
from harness.sandbox import Level, probe
from measurements.unjudged import ROOT, embedded, launch

BARE = "bare torchrun"
ROOM = 2**36


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        loaded: the embedded benchmark with as many steps as are wanted.
        scratch: a folder for what is measured.
    """

    file: Path
    loaded: LoadedHparams
    scratch: Path

    @property
    def world_size(self) -> int:
        return self.loaded.hparams.world.size

    @property
    def runs(self) -> int:
        return self.loaded.hparams.evaluation_runs


def bare(case: Case, model_dir: Path, tokens: Path) -> float:
    """Seconds of a launch that nobody judges."""
    arguments = [case.file, model_dir, tokens, case.runs]
    started = time.perf_counter()
    launch(
        "measurements.overhead.bare", case.loaded.hparams, case.world_size, arguments, case.scratch
    )
    return time.perf_counter() - started


def judged(case: Case, level: Level, *, bank: bool) -> float:
    """Seconds of `validator run`."""
    command = [
        sys.executable, "-m", "harness.cli", "run", str(case.file), "--hparams", str(case.loaded.path),
        "--sandbox", level.value, "--json", str(case.scratch / "result.json"),
        "--bank" if bank else "--no-bank",
    ]  # fmt: skip
    seconds = timed(command, {**os.environ, "PYTHONPATH": str(ROOT)})
    result = json.loads((case.scratch / "result.json").read_bytes())
    assert [run["banked"] for run in result["runs"]] == [bank] * case.runs
    return seconds


def timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds of a command that has to end well."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def repeat(
    case: Case, levels: Sequence[Level], model_dir: Path, tokens: Path
) -> Iterator[tuple[str, float]]:
    """All of it once, by name."""
    yield BARE, bare(case, model_dir, tokens)
    for level in levels:
        yield level.value, judged(case, level, bank=False)
        if level is not Level.NONE:  # where no bank is used
            fill_bank(
                case.loaded.path, None, level.value, None, case.world_size, case.runs, ROOM, idle=False
            )  # fmt: skip
            yield f"{level.value}, with a bank", judged(case, level, bank=True)


def table(repeats: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """As Markdown: medians, and of the ratios the range too."""
    yield "| what | seconds | of bare |"
    yield "|---|---|---|"
    for name in repeats[0]:
        ratios = [each[name] / each[BARE] for each in repeats]
        seconds = median(each[name] for each in repeats)
        yield f"| {name} | {seconds:.1f} | {median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "submissions" / "train_ddp.py")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--level", action="append", help="may be repeated; default: all that are at hand"
    )
    parser.add_argument("--json", type=Path, help="file that gets every repeat's seconds")
    options = parser.parse_args()
    wanted = [Level(each) for each in options.level or ()]
    levels = [each.level for each in probe() if each.available and each.level in (wanted or Level)]
    with tempfile.TemporaryDirectory() as folder, ProgressDisplay() as progress:
        os.environ["TRAINJUDGE_DATA"] = str(Path(folder, "data"))
        steps = {"min": options.steps, "max": options.steps}
        loaded = embedded(Path(folder), {"steps": steps})
        case = Case(options.file.resolve(), loaded, Path(folder))
        snapshot = ready_snapshot(case.loaded, None, progress)
        draw(snapshot.tokens(), case.loaded.hparams).write(case.scratch / "tokens.safetensors")
        repeats = []
        for number in range(options.repeats):
            tokens = case.scratch / "tokens.safetensors"
            repeats.append(dict(repeat(case, levels, snapshot.model_dir, tokens)))
            progress.line(f"{number + 1} of {options.repeats}: {repeats[-1]}")
    if options.json:
        options.json.write_text(json.dumps(repeats, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(repeats)))


if __name__ == "__main__":
    main()
