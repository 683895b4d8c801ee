"""What the checks cost beside the reference's own training: tokens' losses, and directions.

    python -m measurements.checks [--hparams FILE] [--steps N] [--repeats N] [--json FILE]

Launches of the reference for one evaluation (`evaluation_runs` challenges of N steps), in turns: training
alone; with the losses of sampled tokens under its own and one submitted state; with all of it; and what is
left where the reference comes from a bank. Wall times of whole launches, the import of torch included, and
each turn's ratio to training alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.api import ready_snapshot
from harness.benchmark.challenge import draw
from harness.benchmark.hparams import LoadedHparams, load_hparams
from harness.benchmark.problem import Steps
from harness.machine import pick_device
from harness.reference.launch import Asked, run_reference
from harness.reference.outcome import Ahead, ReferenceRun, RunFolders
from harness.reference.task import default_variant
from harness.report import ProgressDisplay
from harness.sandbox import choose
from harness.verification import secret_coordinates, secret_rows, secret_steps

ALONE, TOKENS, ALL, BANKED = "training alone", "with tokens' losses", "with all checks", "banked"


@dataclass(frozen=True)
class Turn:
    """Seconds of each launch, by its name."""

    seconds: dict[str, float]

    def ratio(self, name: str) -> float:
        return self.seconds[name] / self.seconds[ALONE]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hparams", type=Path)
    parser.add_argument("--steps", type=int, help="of each run; default: the benchmark's most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file that gets every turn's seconds")
    options = parser.parse_args()
    loaded = load_hparams(options.hparams)
    steps = options.steps or loaded.hparams.steps.max
    turns = measure(loaded, steps, options.repeats)
    if options.json:
        found = [turn.seconds for turn in turns]
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"\n{loaded.hparams.name}, {loaded.hparams.evaluation_runs} runs of {steps} steps")
    print("| launch of the reference | seconds | of training alone |\n|---|---|---|")
    for name in (ALONE, TOKENS, ALL, BANKED):
        seconds = statistics.median(turn.seconds[name] for turn in turns)
        ratio = statistics.median(turn.ratio(name) for turn in turns)
        print(f"| {name} | {seconds:.1f} | {ratio:.2f} |")


def measure(loaded: LoadedHparams, steps: int, repeats: int) -> list[Turn]:
    """Every kind of launch in turn, `repeats` times."""
    hparams = loaded.hparams.model_copy(update={"steps": Steps(min=steps, max=steps)})
    sandbox = choose("auto", image=None, hparams_sha256=loaded.sha256)
    with ProgressDisplay() as progress:
        snapshot = ready_snapshot(loaded, None, progress)
    corpus = snapshot.tokens()
    challenges = [draw(corpus, hparams) for _ in range(hparams.evaluation_runs)]
    coordinates = secret_coordinates(snapshot.layout, hparams)
    rows = secret_rows(challenges, hparams)
    looked = secret_steps(challenges, hparams)

    def launch(folder: Path, asked: Asked, ahead: Ahead | None = None) -> list[ReferenceRun]:
        return run_reference(
            hparams, snapshot, challenges, coordinates, default_variant(hparams, hparams.world.size),
            sandbox, pick_device(hparams.world.device, hparams.world.size), folder, asked, ahead=ahead,
        )  # fmt: skip

    turns = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        root.chmod(0o711)  # the reference is another user
        first = launch(root / "first", Asked(rows))
        states = [[run.state] for run in first]
        folders = [RunFolders.of_launch(root / "first", run) for run in range(len(first))]
        kinds: dict[str, Callable[[Path], object]] = {
            ALONE: lambda folder: launch(folder, Asked([])),
            TOKENS: lambda folder: launch(folder, Asked(rows, states)),
            ALL: lambda folder: launch(folder, Asked(rows, states, looked)),
            BANKED: lambda folder: launch(
                folder, Asked(rows, states), Ahead(dict(enumerate(folders)))
            ),
        }
        for repeat in range(repeats):
            seconds = {}
            for number, (name, kind) in enumerate(kinds.items()):
                started = time.monotonic()
                kind(root / f"{repeat}-{number}")
                seconds[name] = time.monotonic() - started
                print(f"{name}: {seconds[name]:.1f} s", flush=True)
            turns.append(Turn(seconds))
    return turns


if __name__ == "__main__":
    main()
