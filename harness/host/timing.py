"""One evaluation at a time on a machine: two that are timed at once slow each other."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

MACHINE_LOCK: Final = "\0trainjudge-timing"
#: Set for a judge whose parent holds the machine for it.
HELD: Final = "TRAINJUDGE_MACHINE_HELD"
LOOK_SECONDS: Final = 0.25


def hold_machine(lock: str = MACHINE_LOCK) -> socket.socket | None:
    """The right to time on this machine; None where somebody has it.

    It is the name of a socket, which nobody can have twice and no crash leaves behind: it is free when the
    last process that has inherited it is gone. Names are of a network namespace, so a judge in a container
    is kept apart from others in that container alone.
    """
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(lock)
    except OSError:
        held.close()
        return None
    return held


@contextmanager
def machine_held(tell: Callable[[], None], lock: str = MACHINE_LOCK) -> Iterator[None]:
    """Hold the machine, waited for as long as it takes; a parent that holds it holds it for us.

    Args:
        tell: called once if there is something to wait for.
        lock: the name.
    """
    if os.environ.get(HELD):
        yield
        return
    held, told = hold_machine(lock), False
    while held is None:
        if not told:
            tell()
            told = True
        time.sleep(LOOK_SECONDS)
        held = hold_machine(lock)
    with held:
        yield
