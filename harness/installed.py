"""Whether this Python has what the judge needs; said in a line before an import would fail.

With the standard library alone, and before anything else of the project is imported.
"""

import sys
from importlib.util import find_spec

NEEDED = ("torch", "transformers", "pydantic", "typer", "rich", "safetensors", "psutil")
BAD_INPUT = 2  # the caller's exit status, as of `validator`


def require_packages() -> None:
    """End with a line and status 2 where a package is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"validator: bad_argument: {sys.executable} lacks {', '.join(missing)}: `make install` in the "
            "project's folder makes an environment, then `. .venv/bin/activate`, or .venv/bin/python in "
            "place of python\n"
        )
        sys.exit(BAD_INPUT)
