"""Real processes that use one store: fresh ones, forked from a small server that has the imports."""

import multiprocessing.util
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from unittest import mock

SECONDS = 60.0
# Where the server's socket lies: made now, before a test has another folder for temporary files, whose path
# may be too long for a socket.
multiprocessing.util.get_temp_dir()


def start(what: Callable[..., None], *arguments: object) -> BaseProcess:
    """Run a function of a module in a process of its own; it takes a few milliseconds to start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.board.acting"])
    process = context.Process(target=what, args=arguments, daemon=True)
    with mock.patch.dict(sys.modules, __main__=ModuleType("__main__")):
        # It would import the program that runs the tests, too.
        process.start()
    return process


def all_end(processes: list[BaseProcess]) -> None:
    """Wait for all; fails if one ended with an error, or does not end."""
    try:
        for process in processes:
            process.join(SECONDS)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


def kill(process: BaseProcess) -> None:
    """As kill -9 does it; afterwards there is no such process."""
    process.kill()
    process.join()


def wait_until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Look again and again; fails after a time that no loaded machine needs."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def together(gate: Path) -> None:
    """Wait for a file, so that all go on at the same moment."""
    while not gate.exists():
        time.sleep(0.001)
