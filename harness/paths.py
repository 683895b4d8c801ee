"""Where this project lies on disk, and the names by which parts of it are started: said once, here.

`env/` and `harness/` lie side by side, in a checkout, in an installation and in the image alike.
"""

import os
from pathlib import Path
from typing import Final

HARNESS: Final = Path(__file__).resolve().parent
PROJECT: Final = HARNESS.parent
_INSIDE: Final = HARNESS / "shipped"
#: Benchmarks, their data and the exemplary train files: in a wheel they are inside (setup.py), else beside.
SHIPPED: Final = _INSIDE if _INSIDE.is_dir() else PROJECT
#: The benchmark that is taken where nobody names one.
DEFAULT_HPARAMS: Final = SHIPPED / "hparams.json"
#: The program that drops privileges; it is run as a file, by a Python that sees nothing else.
ENTER_PROGRAM: Final = HARNESS / "sandbox" / "enter.py"
#: The program that tries to escape; it is copied into a sandbox.
ESCAPES_PACKAGE: Final = HARNESS / "escapes" / "inside"

# Modules that are started with `python -m`. The Dockerfile and the Makefile name the first two, and
# a test holds them to it.
IMAGE_ENTRY: Final = "harness.image.entry"
IMAGE_BUILD: Final = "harness.image"
REFERENCE_LOOP: Final = "harness.reference.loop"
WORKER: Final = "env.worker"
PROFILER: Final = "env.profiler"


def data_folder(wanted: Path | None = None) -> Path:
    """Where what outlasts an evaluation is kept: `wanted`, $TRAINJUDGE_DATA, or the user's data folder."""
    if wanted is not None:
        return wanted
    if named := os.environ.get("TRAINJUDGE_DATA"):
        return Path(named)
    share = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(share) / "trainjudge"
