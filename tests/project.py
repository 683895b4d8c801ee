"""What tests at any depth name: where the project lies, and a benchmark with changes."""

from collections.abc import Callable
from typing import Any

from harness.benchmark.hparams import LoadedHparams
from harness.paths import PROJECT

ROOT = PROJECT
#: Makes a benchmark that differs, as the fixture `edited` does: from dotted fields to their values.
Edit = Callable[[dict[str, Any]], LoadedHparams]
