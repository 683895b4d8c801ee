"""Benchmarks by name: those that come with the judge, in a checkout and in a wheel alike."""

import difflib
import json
from pathlib import Path

from harness.errors import Code, InputError
from harness.paths import DEFAULT_HPARAMS, SHIPPED
from harness.protocol.text import quoted


def benchmarks() -> dict[str, Path]:
    """The hparams files that come with the judge, by the name that stands in each; the default first."""
    profiles = sorted((SHIPPED / "profiles").glob("*.json"), key=lambda file: file.stem)
    files = [DEFAULT_HPARAMS, *profiles]
    return {json.loads(file.read_bytes())["name"]: file for file in files}


def name_of(file: Path) -> str | None:
    """By which a file that comes with the judge can be named; None for others."""
    return next((name for name, known in benchmarks().items() if known == file), None)


def file_of(wanted: Path) -> Path:
    """An hparams file by its path, or by the name of a benchmark.

    Whatever lies at the path, or could only be one ("folder/name", "name.json"), is taken as it is.

    Raises InputError(BAD_ARGUMENT): no benchmark has this name.
    """
    if wanted.exists() or wanted.suffix == ".json" or len(wanted.parts) != 1:
        return wanted
    known = benchmarks()
    if wanted.name in known:
        return known[wanted.name]
    near = difflib.get_close_matches(wanted.name, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(
        Code.BAD_ARGUMENT,
        f"there is no benchmark {quoted(wanted.name)}; {hint}`validator benchmarks` lists those at hand, "
        "and a file is named with its path",
    )
