"""Memory of the judge, and of its ranks beside a bare launch of the same file: peaks, resident.

    python -m measurements.memory [--large] [--json FILE]

The embedded benchmark with `train_ddp.py` on two ranks; with `--large` also a model of a billion parameters
with `train_single.py` on one (one step, short rows; 24 GB of memory, 20 GB of disk, some minutes). The
judge's own process is watched from outside; ranks say their peak, as a bare launch's do.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from harness.api import ready_snapshot
from harness.benchmark.challenge import draw
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.report import ProgressDisplay
from measurements.overhead.bare import PEAK
from measurements.unjudged import ROOT, embedded, launch

#: A billion parameters, nine tenths of them in experts.
LARGE: Final = {
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "num_experts": 32,
    "moe_intermediate_size": 768,
}
POLL_SECONDS: Final = 0.05
MIB: Final = 2**20


@dataclass(frozen=True)
class Peaks:
    """Bytes, resident.

    Attributes:
        state: of the model's weights.
        largest: of its largest tensor.
        judge: of `validator run`, without its children.
        judged, bare: of the rank that needs most.
    """

    what: str
    state: int
    largest: int
    judge: int
    judged: int
    bare: int


def large_one(folder: Path) -> LoadedHparams:
    """A large model on the data of the embedded benchmark."""
    changes = {
        "name": "embedded-large",
        "evaluation_runs": 1,
        "sequence_length": 32,
        "global_batch": 2,
        "steps": {"min": 1, "max": 1},
        "warmup_steps": 1,
        "world": {"size": 1, "device": "cpu"},
        "limits": {
            "memory_bytes": 22 * 2**30, "outbox_bytes": 12 * 2**30, "setup_seconds": 600.0,
        },
    }  # fmt: skip
    return embedded(folder, changes, LARGE)


def judged(file: Path, loaded: LoadedHparams, folder: Path) -> tuple[int, int]:
    """Peak of the judge and of its largest rank."""
    result = folder / "result.json"
    command = [
        sys.executable, "-m", "harness.cli", "run", str(file), "--hparams", str(loaded.path), "--no-bank",
        "--json", str(result),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_resident(process.pid))
        time.sleep(POLL_SECONDS)
    document = json.loads(result.read_bytes())
    if document["verdict"] != "accepted":
        raise ValueError(f"{file.name}: {document['code']}: {document['message']}")
    return peak, max(peak for run in document["runs"] for peak in run["reported_memory_bytes"])


def peak_resident(pid: int) -> int:
    """Of that process alone; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def bare(file: Path, loaded: LoadedHparams, snapshot: Snapshot, folder: Path) -> int:
    """Peak of the largest rank that nobody judges."""
    hparams, tokens = loaded.hparams, folder / "tokens.safetensors"
    draw(snapshot.tokens(), hparams).write(tokens)
    arguments = [file, snapshot.model_dir, tokens, hparams.evaluation_runs]
    said = launch("measurements.overhead.bare", hparams, hparams.world.size, arguments, folder)
    return max(int(peak) for peak in re.findall(rf"{PEAK}(\d+)", said))


def measured(what: str, name: str, *, large: bool) -> Peaks:
    """One model, judged and bare."""
    file = ROOT / "submissions" / f"{name}.py"
    with tempfile.TemporaryDirectory() as temporary, ProgressDisplay() as progress:
        folder = Path(temporary)
        loaded = large_one(folder) if large else embedded(folder, {"evaluation_runs": 1})
        snapshot = ready_snapshot(loaded, None, progress)
        sizes = [4 * math.prod(spec.shape) for spec in snapshot.layout.values()]
        progress.line(f"{what}: judged")
        judge, rank = judged(file, loaded, folder)
        progress.line(f"{what}: bare")
        alone = bare(file, loaded, snapshot, folder)
        return Peaks(what, snapshot.state_bytes, max(sizes), judge, rank, alone)


def table(found: list[Peaks]) -> Iterator[str]:
    """As Markdown, in MiB."""
    yield "| what | weights | largest tensor | judge | a rank, judged | bare | more |"
    yield "|---|---|---|---|---|---|---|"
    for each in found:
        sizes = (
            each.state,
            each.largest,
            each.judge,
            each.judged,
            each.bare,
            each.judged - each.bare,
        )
        yield f"| {each.what} | {' | '.join(f'{size / MIB:,.0f} MiB' for size in sizes)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--large", action="store_true", help="a model of a billion parameters too")
    parser.add_argument("--json", type=Path, help="file that gets the bytes")
    options = parser.parse_args()
    found = [measured("`train_ddp.py`, embedded, 2 ranks", "train_ddp", large=False)]
    if options.large:
        found.append(measured("`train_single.py`, 1 B parameters", "train_single", large=True))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
