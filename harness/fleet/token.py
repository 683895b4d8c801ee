"""Ray's token: whether this machine has one, so that we show it where `ray start` here would ask for it."""

import os
from pathlib import Path
from typing import Final

#: Where Ray looks first, and second; then in the user's home.
GIVEN: Final = "RAY_AUTH_TOKEN"
PATH: Final = "RAY_AUTH_TOKEN_PATH"
HOME: Final = ".ray/auth_token"


def has_token() -> bool:
    """As Ray decides it: a token in the environment, or a file that is not empty."""
    if os.environ.get(GIVEN):
        return True
    file = Path(os.environ.get(PATH) or Path.home() / HOME)
    try:
        return bool(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
