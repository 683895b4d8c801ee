"""What the processes of the tests do; see `processes`."""

import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from harness.board import migrate, queue, stopping, worker  # noqa: F401 - imported once, for all processes
from harness.board.outcome import finish
from harness.board.queue import WorkerId, take, this_worker
from harness.board.stopping import Stop
from harness.board.store import open_store
from harness.board.submit import Examined, Handed, submit
from harness.board.worker import Job, work
from harness.host.timing import hold_machine
from tests.board.examples import HPARAMS_SHA256, accepted_result
from tests.board.processes import together

#: Behaves on the command line as `validator run` does.
STANDIN = (sys.executable, "-S", "-E", str(Path(__file__).with_name("standin.py")))


def job(lock: str, options: tuple[str, ...], once: bool = True) -> Job:
    """A worker's, with the stand-in for a judge."""
    return Job(Path("hparams.json"), HPARAMS_SHA256, options, once, judge=STANDIN, lock=lock)


def works(url: str, lock: str, options: tuple[str, ...], temporary: Path, once: bool) -> None:
    """Be a worker, as the command is one: the first signal asks, the second insists."""
    tempfile.tempdir = str(temporary)
    stop = Stop(grace_seconds=600)
    signal.signal(signal.SIGTERM, lambda number, frame: stop.request())
    work(open_store(url), job(lock, options, once), stop, lambda line: None)


def hurries(url: str, lock: str, options: tuple[str, ...], temporary: Path, once: bool) -> None:
    """Be a worker that looks more often, and bears more deaths, than one of a real board."""
    stopping.LOOK_SECONDS, worker.IDLE_SECONDS = 0.02, 0.1  # type: ignore[misc]
    queue.MAX_STARTS = 1_000_000  # type: ignore[misc]
    works(url, lock, options, temporary, once)


def submits(url: str, examined: Examined, source: bytes, said: Path, seed: int) -> None:
    """Submit until it is killed, each time with a note of its own; say so when that was taken."""
    store, pauses = open_store(url), random.Random(seed)
    with said.open("ab", buffering=0) as file:
        while True:
            note = uuid4().hex
            number = submit(store, Handed("ada", "train.py", source, note), examined)
            file.write(f"{note} {number}\n".encode())
            time.sleep(pauses.uniform(0, 0.6))


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
    held = hold_machine(lock)
    said.write_text("held" if held else "not held")
    time.sleep(600)
