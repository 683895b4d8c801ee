"""The head of a fleet, watched by whoever is part of it.

A minute after it is gone Ray ends the process, with status 1: here that means `rejected`, and nobody would
be told why. So it is ended shortly before, with a sentence and the status of our own failures.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from harness.errors import Code, InputError, JudgeError

#: Of a connection, until whoever is asked counts as silent.
REACH_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 2.0
#: Ray's own is 60; an attempt to connect may take what is between.
GONE_SECONDS: Final = 45.0


def check_reachable(address: str) -> None:
    """Whether a head answers; Ray itself would try for minutes, and end this process then.

    Raises InputError(BAD_ARGUMENT).
    """
    try:
        _reach(address)
    except (OSError, ValueError) as error:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"no fleet at {address}: {error}; HOST:PORT of its head is wanted, such as 10.0.0.1:6379",
        ) from None


@contextmanager
def watched(address: str) -> Iterator[None]:
    """Ends this process where the head at that address was not reached for `GONE_SECONDS`.

    There is no other way: Ray's calls wait for the head, and nothing interrupts them.
    """
    over = threading.Event()
    threading.Thread(target=_watch, args=(address, over), name="head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, over: threading.Event) -> None:
    reached = time.monotonic()
    while not over.wait(LOOK_SECONDS):
        try:
            _reach(address)
            reached = time.monotonic()
        except OSError:
            if time.monotonic() - reached > GONE_SECONDS and not over.is_set():
                _end(address)


def _end(address: str) -> NoReturn:
    said = (
        f"validator: {Code.INTERNAL}: the head of the fleet at {address} was not reached for "
        f"{GONE_SECONDS:.0f} s: start it again, then this; leases end by themselves\n"
    )
    os.write(sys.stderr.fileno(), said.encode())
    os._exit(JudgeError.exit_status)


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
