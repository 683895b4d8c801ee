"""The exemplary train files beside transformers' Trainer, Accelerate and plain DDP: seconds of training.

    python -m measurements.train_files [--steps 20] [--repeats 7] [--json FILE]

All files with as many ranks train in one launch, in turns, on the same model and tokens. Ratios are taken
within a turn; above 1 a file is faster than that one.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from harness.api import ready_snapshot
from harness.benchmark.challenge import draw
from harness.report import ProgressDisplay
from measurements.unjudged import ROOT, embedded, launch

RIVALS = Path(__file__).resolve().parent / "rivals"
#: By ranks: the exemplary files, and what a user would pick instead.
FILES: Mapping[int, tuple[Sequence[str], Sequence[str]]] = {
    1: (("train_single",), ("trainer", "accelerated")),
    2: (
        ("train_ddp", "train_fast", "train_compiled", "train_fsdp", "train_ep", "train_dp2ep"),
        ("trainer", "accelerated", "ddp_eager"),
    ),
}
Turn = Mapping[str, float]


def turns(world_size: int, steps: int, repeats: int, folder: Path) -> list[Turn]:
    """Seconds of every file, by its name, of every turn."""
    loaded = embedded(folder, {"steps": {"min": steps, "max": steps}})
    tokens, output = folder / "tokens.safetensors", folder / "turns.json"
    with ProgressDisplay() as progress:
        snapshot = ready_snapshot(loaded, None, progress)
    draw(snapshot.tokens(), loaded.hparams).write(tokens)
    ours, rivals = FILES[world_size]
    files = [ROOT / "submissions" / f"{name}.py" for name in ours]
    files += [RIVALS / f"{name}.py" for name in rivals]
    arguments = [snapshot.model_dir, tokens, output, repeats, *files]
    launch("measurements.train_files.rank", loaded.hparams, world_size, arguments, folder)
    found: list[Turn] = json.loads(output.read_bytes())
    return found


def table(found: Mapping[int, Sequence[Turn]], steps: int) -> Iterator[str]:
    """As Markdown: a row for each of our files, a column for each rival."""
    rivals = list(dict.fromkeys(name for _, names in FILES.values() for name in names))
    yield f"| train file | ranks | ms a step | {' | '.join(f'of {name}' for name in rivals)} |"
    yield f"|---|---|---|{'---|' * len(rivals)}"
    for world_size, measured in found.items():
        for name in FILES[world_size][0]:
            cells = [_ratio(measured, name, rival) for rival in rivals]
            milliseconds = 1000 * median(turn[name] for turn in measured) / steps
            yield f"| `{name}` | {world_size} | {milliseconds:.0f} | {' | '.join(cells)} |"


def _ratio(measured: Sequence[Turn], name: str, rival: str) -> str:
    """How many times as fast, with the range."""
    if rival not in measured[0]:
        return ""
    ratios = [turn[rival] / turn[name] for turn in measured]
    return f"{median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file that gets every turn's seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            world_size: turns(world_size, options.steps, options.repeats, Path(folder))
            for world_size in FILES
        }
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(found, options.steps)))


if __name__ == "__main__":
    main()
