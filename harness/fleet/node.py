"""On a node: what it is, written down by `fleet join`, and the judging of one file.

Nothing here knows of Ray. The process that runs it is a worker of Ray's and knows no secret: it is handed a
file, and hands back what came of it.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from typing import Final

from pydantic import Field

from harness.board.child import Child, last_line, mark_folder
from harness.board.judge_process import Judged
from harness.board.judge_process import Order as JudgeOrder
from harness.board.judging import judge_started, outcome_of, words_of
from harness.board.worker import JUDGE as RUN
from harness.errors import Code, InputError
from harness.fleet.measuring import Measurement
from harness.fleet.offer import Offer
from harness.fleet.reports import Ended, Measure, Order, Report, Said, Unable
from harness.host.leftovers import clean_up
from harness.host.timing import MACHINE_LOCK, hold_machine
from harness.records import Record

#: Names the file that says what this node is, for all processes below `fleet join`.
SEAT: Final = "TRAINJUDGE_FLEET_NODE"
#: A judge before this one, whose worker was killed, has that long to clean up after itself.
HOLD_SECONDS: Final = 90.0
#: A measurement that was asked to end has that long to end its sandboxes.
END_SECONDS: Final = 60.0
MEASURE: Final = (sys.executable, "-m", "harness.cli", "fleet", "measure")
THREADS: Final = "OMP_NUM_THREADS"


class HeldBenchmark(Record):
    """Where a node has a benchmark; every hash of the snapshot has been checked."""

    hparams: Path
    snapshot: Path


class Seat(Record):
    """What a node is, and how it judges."""

    offer: Offer
    benchmarks: dict[str, HeldBenchmark] = Field(description="by hash of the hparams file")
    options: tuple[str, ...] = Field(description="of `validator run`, such as --sandbox docker")
    image: str | None = Field(default=None, description="of level docker; null: the default one")
    judge: tuple[str, ...] = Field(default=RUN, description="the command that judges a file")
    measure: tuple[str, ...] = Field(default=MEASURE, description="and the one that measures")
    lock: str = Field(default=MACHINE_LOCK, description="whoever times here holds it")


def this_seat() -> Seat:
    """Of the node that this process is on. Raises InputError(BAD_ARGUMENT): it is on none."""
    try:
        return Seat.model_validate_json(Path(os.environ[SEAT]).read_bytes())
    except (KeyError, OSError) as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"this is no node that `validator fleet join` has started: {error}"
        ) from None


def work_here(order: Order | Measure) -> Iterator[Report]:
    """Judge a file on this node, or measure: what is said meanwhile, and at the end what came of it.

    Whoever ends the iteration early ends the work.
    """
    seat = this_seat()
    _forget_threads_of_ray()
    held = hold_machine(seat.lock)
    until = time.monotonic() + HOLD_SECONDS
    while held is None and time.monotonic() < until:
        time.sleep(0.25)
        held = hold_machine(seat.lock)
    if held is None:
        yield Unable("something else is timed on this machine")
        return
    with held:
        clean_up()  # of an evaluation whose worker was killed here
        try:
            if isinstance(order, Order):
                yield from _judge(seat, order, held)
            else:
                yield from _measure(seat, order, held)
        except OSError as error:
            yield Unable(error.strerror or type(error).__name__)


def _judge(seat: Seat, order: Order, held: socket) -> Iterator[Report]:
    with judge_started(_order(seat, order), held) as judge:
        for said in words_of(judge, lambda: False):
            yield Said(said)
        yield _ended(outcome_of(judge, stopped=False))


def _measure(seat: Seat, order: Measure, held: socket) -> Iterator[Report]:
    place = seat.benchmarks[order.benchmark]
    with tempfile.TemporaryDirectory(prefix="trainjudge-worker-") as folder:
        output = Path(folder, "measured.json")
        mark_folder(Path(folder))
        task = Measurement(
            portion=order.portion,
            hparams=place.hparams,
            snapshot=place.snapshot,
            level=seat.offer.level,
            image=seat.image,
            output=output,
        )
        child = Child([*seat.measure, task.model_dump_json()], Path(folder, "log"), [held])
        try:
            for said in words_of(child, lambda: False):
                yield Said(said)
        finally:
            child.end(END_SECONDS)
        document = output.read_bytes() if output.exists() else None
        yield Ended(document, child.status, last_line(child.said()))


def _order(seat: Seat, order: Order) -> JudgeOrder:
    place, asked = seat.benchmarks[order.benchmark], order.asked
    where = ("--hparams", str(place.hparams), "--snapshot", str(place.snapshot))
    options = (*where, "--world", str(asked.world_size), *seat.options, *asked.options)
    return JudgeOrder(seat.judge, asked.file_name, asked.source, options)


def _ended(judged: Judged) -> Ended:
    document = None if judged.result is None else judged.result.model_dump_json().encode()
    return Ended(document, judged.status, judged.last_line)


def _forget_threads_of_ray() -> None:
    """Ray limits the threads of its workers; a judge has as many as one that a person starts."""
    if f"{THREADS}=".encode() not in Path("/proc/self/environ").read_bytes():
        os.environ.pop(THREADS, None)
