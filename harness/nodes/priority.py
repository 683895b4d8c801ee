"""Who is heard, whatever ranks do with the cores: threads above them, as a sandbox's supervisor is."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

T = TypeVar("T")
ABOVE: Final = -10


def above_the_ranks() -> None:
    """This thread alone (Linux has a priority for each); what it starts inherits it."""
    _set(ABOVE)


def as_the_ranks(work: Callable[[], T]) -> T:
    """Do that in this thread, which was started by one above them: what it starts runs as usual."""
    _set(0)
    return work()


def _set(niceness: int) -> None:
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
