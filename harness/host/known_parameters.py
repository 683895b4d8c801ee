"""What a model has, counted once: to count it transformers has to be imported, which takes seconds."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from harness.host.remembered import Remembered
from harness.paths import HARNESS
from harness.score.flops import ParameterCount, count_parameters

#: Models, the newest last; whoever judges more of them counts again.
MOST: Final = 100
#: What counts, besides transformers.
COUNTING: Final = ("score/flops.py", "benchmark/experts.py", "benchmark/model_config.py")

KNOWN: Final = Remembered("parameters.json", TypeAdapter(dict[str, ParameterCount]))


def parameters_of(model_dir: Path) -> ParameterCount:
    """Of a snapshot's model, as `score.flops.count_parameters` counts.

    A count is kept in the data folder for this config, this code and these versions.

    Raises InputError as that does.
    """
    key = _key(model_dir)
    known = KNOWN.read()
    if key not in known:
        from harness.benchmark.model_config import load_config

        known[key] = count_parameters(load_config(str(model_dir)))
        KNOWN.write(dict(list(known.items())[-MOST:]))
    return known[key]


def _key(model_dir: Path) -> str:
    found = hashlib.sha256((model_dir / "config.json").read_bytes())
    for name in COUNTING:
        found.update((HARNESS / name).read_bytes())
    found.update(f"{version('transformers')} {version('torch')}".encode())
    return found.hexdigest()
