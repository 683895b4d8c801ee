"""What measurements share: the embedded benchmark with other settings, and launches that nobody judges."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness.benchmark.hparams import Hparams, LoadedHparams, load
from harness.machine import threads_per_rank
from harness.sandbox import torchrun_argv
from harness.timed.job import BENCHMARK_FIELDS

ROOT: Final = Path(__file__).resolve().parents[1]


def embedded(
    folder: Path, changes: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> LoadedHparams:
    """The embedded benchmark with some fields changed, and of its model's config; written into `folder`.

    Its peak is given, as that of a GPU is from a table. Its calibration is of another benchmark: it accepts
    whatever is trained, since times and memory do not depend on that.
    """
    raw: dict[str, Any] = json.loads((ROOT / "hparams.json").read_bytes())
    raw["model"]["tokenizer"] = str(ROOT / raw["model"]["tokenizer"])
    raw["data"]["file"] = str(ROOT / raw["data"]["file"])
    raw["model"]["config"] |= config or {}
    raw |= {"mfu": {"peak_tflops": 1.0}, **changes}
    raw["verify"]["tolerances"] = dict.fromkeys(raw["verify"]["tolerances"], 1e9)
    path = folder / f"{raw['name']}.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return load(path)


def launch(
    module: str, hparams: Hparams, world_size: int, arguments: Sequence[object], scratch: Path
) -> str:
    """Run a module under torchrun, as ranks find the benchmark in a sandbox; gives what they print.

    Raises CalledProcessError.
    """
    benchmark = scratch / "benchmark.json"
    benchmark.write_text(hparams.model_dump_json(include=BENCHMARK_FIELDS))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads_per_rank(world_size)),
        "TRAINJUDGE_BENCHMARK": str(benchmark),
    }
    command = [*torchrun_argv(world_size, module), *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    )
    return done.stdout
