"""Sources of train files, for tests of how they are read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import SubmissionError
from harness.submission.read import read

Write = Callable[[str | bytes], Path]

INNER_STEPS = (
    "def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):\n    pass\n"
)
STRATEGY = "def get_strategy():\n    return {'dp_size': 2}\n"


def writer(folder: Path) -> Write:
    """A function that writes a source to train.py in `folder` and returns its path."""

    def write(source: str | bytes) -> Path:
        path = folder / "train.py"
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        return path

    return write


def refusal(path: Path, world: int | None = None) -> SubmissionError:
    with pytest.raises(SubmissionError) as caught:
        read(path, world)
    return caught.value


def declared(write: Write, returned: str) -> Path:
    return write(f"{INNER_STEPS}def get_strategy():\n    return {returned}\n")
