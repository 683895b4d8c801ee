"""Exemplary train files to start from: `validator init`."""

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import Code, InputError
from harness.paths import SHIPPED
from harness.protocol.text import quoted

FOLDER: Final = SHIPPED / "submissions"
#: What a train file defines and what it is given, for people.
CONTRACT: Final = FOLDER / "README.md"
PREFIX: Final = "train_"
NAME: Final = "train.py"


@dataclass(frozen=True)
class Started:
    """A train file that was just made. Attributes: file: where; origin: the example that it is."""

    file: Path
    origin: Path


def strategies() -> dict[str, Path]:
    """The examples by what follows `train_` in their names."""
    return {file.stem.removeprefix(PREFIX): file for file in sorted(FOLDER.glob(f"{PREFIX}*.py"))}


def start(folder: Path, strategy: str) -> Started:
    """Put an example into a new or empty folder as train.py.

    Raises InputError(BAD_ARGUMENT): no such strategy, a folder that holds something or cannot be made.
    """
    known = strategies()
    name = strategy.lower().replace("-", "_").removeprefix(PREFIX).removesuffix(".py")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            Code.BAD_ARGUMENT,
            f"there is no example for {quoted(strategy)}{hint}; there is one for {', '.join(known)}",
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(Code.BAD_ARGUMENT, f"{folder} is a file: name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(
                Code.BAD_ARGUMENT, f"{folder} is not empty: name a new folder, or an empty one"
            )
        shutil.copyfile(known[name], folder / NAME)
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"{folder / NAME} cannot be written: {error.strerror}"
        ) from None
    return Started(folder / NAME, known[name])
