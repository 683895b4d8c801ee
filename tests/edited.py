"""Benchmarks that differ from another one in some fields."""

import copy
import json
from pathlib import Path
from typing import Any

from harness.benchmark.hparams import LoadedHparams, load


def written(raw: dict[str, Any], folder: Path, changes: dict[str, Any]) -> LoadedHparams:
    """Fields of an hparams file with changes such as `{"steps.max": 5, "model": {...}}`, in that folder."""
    raw = copy.deepcopy(raw)
    for dotted, value in changes.items():
        *sections, field = dotted.split(".")
        target = raw
        for section in sections:
            target = target[section]
        target[field] = value
    path = folder / "hparams.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return load(path)


def differing(loaded: LoadedHparams, folder: Path, changes: dict[str, Any]) -> LoadedHparams:
    """A benchmark whose files are named by absolute path, with changes, in another folder."""
    return written(json.loads(loaded.path.read_bytes()), folder, changes)
