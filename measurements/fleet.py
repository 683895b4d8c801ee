"""What the dispatcher of a fleet costs: `python -m measurements.fleet`, a minute for each line.

Nodes are made up, so that only this process is measured: its workers, the store, what it asks it. Each
evaluation lasts `SECONDS` and says something new every second, as a judge does.
"""

import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from harness.board.rule import ScoringRule
from harness.board.stopping import Stop
from harness.board.store import Store, open_store
from harness.board.worker import Job
from harness.fleet.dispatch import Benchmark, dispatch
from harness.fleet.offer import Node, Offer
from harness.fleet.reports import Ended, Order, Report, Said
from tests.board.examples import HPARAMS_SHA256, accepted_result, board_with, hand_in

SECONDS: Final = 20.0
ROUNDS: Final = 2


@dataclass
class MadeUpTask:
    """A judge that says something every second and accepts at the end."""

    ends_at: float
    document: bytes
    said: int = 0
    over: bool = False

    def next(self, seconds: float) -> Report | None:
        time.sleep(seconds)
        if time.monotonic() >= self.ends_at:
            self.over = True
            return Ended(self.document, 0, "")
        self.said += 1
        return Said(f"{self.said // 4}\n" * 20) if self.said % 4 == 0 else None

    def end(self) -> None:
        pass


@dataclass
class MadeUp:
    """A fleet of so many nodes."""

    count: int
    document: bytes = field(default_factory=lambda: accepted_result().model_dump_json().encode())

    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node(str(each), _offer(each), False, "") for each in range(self.count))

    def start(self, node: Node, gpus: int, order: Order) -> MadeUpTask:
        return MadeUpTask(time.monotonic() + SECONDS, self.document)


def _offer(number: int) -> Offer:
    return Offer(
        node=f"host{number}-0", host=f"host{number}", kernel=f"kernel-{number}",
        version=version("trainjudge"), cores=2, cpu="x86_64", gpus=2,
        gpu="NVIDIA H100 80GB HBM3", level="docker", benchmarks=(HPARAMS_SHA256,),
    )  # fmt: skip


def measured(store: Store, nodes: int) -> str:
    """One line: how long it took beyond the evaluations themselves, and what of a core."""
    waiting = nodes * ROUNDS
    for number in range(waiting):
        hand_in(store, "ada", number % 200)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    finished = dispatch(
        store,
        MadeUp(nodes),
        Job(Path("hparams.json"), HPARAMS_SHA256, once=True),
        Benchmark(HPARAMS_SHA256, "cuda"),
        version("trainjudge"),
        Stop(600),
        lambda line: None,
    )
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert finished == waiting
    lost = took / ROUNDS - SECONDS
    memory = after.ru_maxrss / 2**10
    return f"| {nodes} | {lost:.1f} s | {100 * cpu / took:.0f} % | {memory:.0f} MiB |"


def main() -> None:
    print(
        "| nodes | lost for each evaluation | of a core | memory |", "|---|---|---|---|", sep="\n"
    )
    for nodes in [int(each) for each in sys.argv[1:]] or [1, 10, 50, 200]:
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(os.environ.get("STORE") or f"sqlite:///{folder}/board.sqlite")
            board_with(store, "ada", rule=ScoringRule(pairs=0, submissions_per_day=100_000))
            print(measured(store, nodes), flush=True)
            store.close()


if __name__ == "__main__":
    main()
