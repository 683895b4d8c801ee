"""Moments and shares as text, for a terminal, a page and a file alike."""

import math
from datetime import UTC, datetime
from typing import Final

_LAST_SECOND: Final = 253_370_764_800.0


def utc(at: float) -> datetime:
    """A moment, given in seconds since 1970; one outside of the calendar is moved into it."""
    return datetime.fromtimestamp(min(max(at, 0.0), _LAST_SECOND), UTC)


def iso(at: float) -> str:
    """A moment as RFC 3339 has it."""
    return f"{utc(at):%Y-%m-%dT%H:%M:%SZ}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share as percent; a dash where there is none."""
    if share is None or math.isnan(share):
        return "–"
    return f"{100 * share:.{digits}f} %"
