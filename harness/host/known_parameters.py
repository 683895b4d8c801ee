"""What a model has, counted once: to count it transformers has to be imported, which takes seconds."""

import hashlib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from harness.files import write_whole
from harness.paths import HARNESS, data_folder
from harness.score.flops import ParameterCount, count_parameters

FILE: Final = "parameters.json"
#: Models, the newest last; whoever judges more of them counts again.
MOST: Final = 100
#: What counts, besides transformers.
COUNTING: Final = ("score/flops.py", "benchmark/experts.py", "benchmark/model_config.py")

_KNOWN: Final = TypeAdapter(dict[str, ParameterCount])


def parameters_of(model_dir: Path) -> ParameterCount:
    """Of a snapshot's model, as `score.flops.count_parameters` counts.

    A count is kept in the data folder for this config, this code and these versions.

    Raises InputError as that does.
    """
    file, key = data_folder() / FILE, _key(model_dir)
    known = _read(file)
    if key not in known:
        from harness.benchmark.model_config import load_config

        known[key] = count_parameters(load_config(str(model_dir)))
        newest = dict(list(known.items())[-MOST:])
        with suppress(OSError):  # then it is counted again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, _KNOWN.dump_json(newest, indent=1).decode())
    return known[key]


def _key(model_dir: Path) -> str:
    found = hashlib.sha256((model_dir / "config.json").read_bytes())
    for name in COUNTING:
        found.update((HARNESS / name).read_bytes())
    found.update(f"{version('transformers')} {version('torch')}".encode())
    return found.hexdigest()


def _read(file: Path) -> dict[str, ParameterCount]:
    """Nothing where there is no such file, or none that we understand."""
    with suppress(OSError, ValidationError):
        return _KNOWN.validate_json(file.read_bytes())
    return {}
