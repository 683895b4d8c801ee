"""What the processes of the tests do; see `processes`."""

import time
from pathlib import Path

from harness.board import migrate, submit, worker  # noqa: F401 - imported once, for all processes
from harness.board.queue import WorkerId, finish, take, this_worker
from harness.board.store import open_store
from tests.board.examples import HPARAMS_SHA256, accepted_result
from tests.board.processes import together


def opens(url: str, gate: Path) -> None:
    """Open a store at the same moment as others."""
    together(gate)
    open_store(url).close()


def takes_and_says_no_more(url: str, said: Path) -> None:
    """Take an evaluation, say so, and do nothing about it."""
    taken = take(open_store(url), this_worker(), HPARAMS_SHA256)
    assert taken is not None
    said.write_text(str(taken.evaluation))
    time.sleep(600)


def judges_all(url: str, machine: str, gate: Path, said: Path) -> None:
    """Be the worker of a machine until nothing waits; write down what it had."""
    together(gate)
    store = open_store(url)
    me = WorkerId(this_worker().name, machine)
    while (taken := take(store, me, HPARAMS_SHA256)) is not None:
        with said.open("a") as file:
            file.write(f"{taken.evaluation}\n")
        finish(store, taken, accepted_result((0.4,)), seconds=1.0)


def holds_machine(lock: str, said: Path) -> None:
    """Have the right to time until it is killed."""
    held = worker.hold_machine(lock)
    said.write_text("held" if held else "not held")
    time.sleep(600)
