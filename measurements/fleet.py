"""What dispatchers of a fleet cost: `python -m measurements.fleet`, some minutes for each line.

    python -m measurements.fleet [--nodes 1 10 50] [--dispatchers 4] [--postgresql | --store URL]

Nodes are made up, so that only the dispatchers' processes are measured: their workers, the store, what they
ask it. Each evaluation lasts `SECONDS` and says something new every second, as a judge does; all begin at
the same moment, which a real fleet's do not. Several dispatchers divide the nodes, as several clusters with
one store do. Then nothing waits, and the nodes are idle for `IDLE_SECONDS`.

`--postgresql` starts a server for each line, where its programs are installed, with settings that keep what
was committed.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from harness.board.maintenance import check
from harness.board.queue import LEASE_SECONDS
from harness.board.rule import ScoringRule
from harness.board.states import EvaluationState
from harness.board.store import Store, open_store
from harness.board.tables import Evaluation, EventRow
from harness.board.worker import Job
from harness.fleet.dispatch import Benchmark, Dispatcher
from harness.fleet.offer import Node, Offer
from harness.fleet.reports import Ended, Order, Report, Said
from tests.board import postgres
from tests.board.examples import HPARAMS_SHA256, accepted_result, board_with, hand_in

SECONDS: Final = 20.0
IDLE_SECONDS: Final = 20.0
ROUNDS: Final = 2
#: Of the server of `--postgresql`: by default it keeps what was committed.
SETTINGS: Final = ("max_connections=500",)
TITLES: Final = (
    "nodes", "dispatchers", "lost for each evaluation", "of a core", "idle", "oldest word",
    "memory of each",
)  # fmt: skip


@dataclass
class MadeUpTask:
    """A judge that says something every second and accepts at the end."""

    ends_at: float
    document: bytes
    said: int = 0

    def next(self, seconds: float) -> Report | None:
        time.sleep(seconds)
        if time.monotonic() >= self.ends_at:
            return Ended(self.document, 0, "")
        self.said += 1
        return Said(f"{self.said // 4}\n" * 20) if self.said % 4 == 0 else None

    def end(self) -> None:
        pass


@dataclass(frozen=True)
class MadeUp:
    """A fleet of these nodes."""

    living: tuple[Node, ...]
    document: bytes

    def nodes(self) -> tuple[Node, ...]:
        return self.living

    def start(self, node: Node, gpus: int, order: Order) -> MadeUpTask:
        return MadeUpTask(time.monotonic() + SECONDS, self.document)


@dataclass(frozen=True)
class Ending:
    """When a dispatcher that has nothing to do ends."""

    at: float

    @property
    def requested(self) -> bool:
        return time.monotonic() >= self.at

    @property
    def due(self) -> bool:
        return False


@dataclass(frozen=True)
class Cost:
    """Of one dispatcher: how long it took, seconds of a core meanwhile, KiB at most."""

    took: float
    busy: float
    memory: int


def _made_up(numbers: range) -> MadeUp:
    ours = version("trainjudge")
    offers = [
        Offer(
            node=f"host{number}-0", host=f"host{number}", kernel=f"kernel-{number}", version=ours,
            cores=2, cpu="x86_64", gpus=2, gpu="NVIDIA H100 80GB HBM3", level="docker",
            benchmarks=(HPARAMS_SHA256,),
        )
        for number in numbers
    ]  # fmt: skip
    living = tuple(Node(offer.node, offer, False, "") for offer in offers)
    return MadeUp(living, accepted_result().model_dump_json().encode())


def dispatched(url: str, numbers: range, idle: float) -> Cost:
    """Be a dispatcher of these nodes until nothing waits, or for so many seconds if that is not 0."""
    store = open_store(url)
    fleet = _made_up(numbers)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    Dispatcher(
        store,
        fleet,
        Job(Path("hparams.json"), HPARAMS_SHA256, once=not idle),
        Benchmark(HPARAMS_SHA256, "cuda"),
        version("trainjudge"),
        Ending(began + (idle or float("inf"))),
        lambda line: None,
    ).run()
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    store.close()
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(took, busy, after.ru_maxrss)


def _all(url: str, store: Store, parts: list[range], idle: float) -> tuple[list[Cost], float]:
    """The costs of all dispatchers, and how long at most a lease was not renewed, in seconds."""
    context = multiprocessing.get_context("spawn")
    oldest = 0.0
    with ProcessPoolExecutor(len(parts), mp_context=context) as pool:
        running = [pool.submit(dispatched, url, part, idle) for part in parts]
        while not all(each.done() for each in running):
            time.sleep(1.0)
            with store.read() as session:
                ends = session.scalar(
                    select(func.min(Evaluation.lease_until)).where(
                        Evaluation.state == EvaluationState.RUNNING
                    )
                )
            oldest = max(oldest, store.now() + LEASE_SECONDS - ends if ends is not None else 0.0)
        return [each.result() for each in running], oldest


def measured(url: str, nodes: int, dispatchers: int) -> str:
    """One line of the table."""
    store = open_store(url)
    board_with(store, "ada", rule=ScoringRule(pairs=0, submissions_per_day=100_000))
    for number in range(nodes * ROUNDS):
        hand_in(store, "ada", number % 200)
    parts = [range(nodes)[first::dispatchers] for first in range(dispatchers)]
    costs, oldest = _all(url, store, parts, 0.0)
    idle, _ = _all(url, store, parts, IDLE_SECONDS)
    with store.read() as session:
        kinds = select(EventRow.kind, func.count()).group_by(EventRow.kind)
        counted = {row[0]: row[1] for row in session.execute(kinds)}
    assert counted["evaluation_started"] == counted["evaluation_finished"] == nodes * ROUNDS
    assert check(store).problems == ()
    store.close()
    lost = max(each.took for each in costs) / ROUNDS - SECONDS
    busy, rests = (sum(100 * each.busy / each.took for each in of_all) for of_all in (costs, idle))
    cells = (
        f"{nodes}", f"{dispatchers}", f"{lost:.1f} s", f"{busy:.0f} %", f"{rests:.0f} %",
        f"{oldest:.0f} s", f"{max(each.memory for each in costs) / 2**10:.0f} MiB",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


@contextmanager
def _empty_place(wanted: str | None, postgresql: bool) -> Iterator[str]:
    """The URL of a store that nobody has opened."""
    programs = postgres.programs()
    if wanted is not None:
        yield wanted
    elif postgresql:
        assert programs is not None, "PostgreSQL is not installed"
        with postgres.running(programs, SETTINGS) as server:
            yield server.create("board")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/board.sqlite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 50, 200, 500, 1000])
    parser.add_argument("--dispatchers", type=int, default=1)
    parser.add_argument("--store", help="an empty database; for one line")
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    print(f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|", sep="\n")
    for nodes in options.nodes:
        with _empty_place(options.store, options.postgresql) as url:
            print(measured(url, nodes, options.dispatchers), flush=True)


if __name__ == "__main__":
    main()
