"""The dispatcher: a worker for each node, all in this process, for as long as the node lives.

A node is asked for nothing but to judge a file. Who is next, leases, what follows from a result and what is
tried again is the worker's business (`board.worker`) and the store's, as on one machine. So the death of a
node is a judge that ended without a result; the death of the dispatcher is that of all its workers, whose
leases end.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from harness.board.patience import Patience
from harness.board.queue import WorkerId, this_worker, waits
from harness.board.stopping import Ending, rest
from harness.board.store import Store
from harness.board.tables import WORKER_CHARACTERS
from harness.board.worker import Job, Shared, Working
from harness.errors import TrainjudgeError
from harness.fleet.canaries import Canary, known, newest_event
from harness.fleet.duty import CanaryDuty
from harness.fleet.offer import Needs, Node, Offer
from harness.fleet.open_work import OpenWork
from harness.fleet.remote import NodePlace, Task
from harness.fleet.reports import Order
from harness.phases import OnProgress

LOOK_SECONDS: Final = 1.0
#: A node that could not judge is asked again after so long.
AGAIN_SECONDS: Final = 600.0
#: A node that lives, but on which Ray's worker was killed, is asked again after so long.
LOST_SECONDS: Final = 60.0


class Fleet(Protocol):
    """The nodes; `cluster.Cluster`."""

    def nodes(self) -> Iterable[Node]: ...
    def start(self, node: Node, gpus: int, order: Order) -> Task: ...


@dataclass(frozen=True)
class Benchmark:
    """What is judged, as a node and the store know it.

    Attributes:
        sha256: of the hparams file.
        device: as it says: auto, cpu or cuda.
        canary: what nodes are compared by; None: they are not.
    """

    sha256: str
    device: str
    canary: Canary | None = None


class Leaving:
    """A node's worker has to end: everybody does, or its node takes nothing more."""

    def __init__(self, everybody: Ending) -> None:
        self._everybody = everybody
        self.node_leaves = self._at_once = False

    def leave(self, at_once: bool = False) -> None:
        """Its node takes nothing more; what it has is given back where its result would not count."""
        self.node_leaves = True
        self._at_once = self._at_once or at_once

    @property
    def requested(self) -> bool:
        return self._everybody.requested or self.node_leaves

    @property
    def due(self) -> bool:
        return self._everybody.due or self._at_once


class Dispatcher:
    """Has nodes judge what waits.

    Args:
        version: of this program, which nodes have to have.
        stop: until it says so, or until nothing waits if the job is to be done once.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        job: Job,
        benchmark: Benchmark,
        version: str,
        stop: Ending,
        progress: OnProgress,
    ) -> None:
        self._store, self._fleet, self._job = store, fleet, job
        self._benchmark, self._version = benchmark, version
        self._stop, self._say = stop, progress
        self._shared = Shared.of(store)
        self._open = OpenWork(store, self._shared, benchmark.sha256, this_worker())
        self._workers: dict[str, NodeWorker] = {}
        self._not_before: dict[str, float] = {}
        self._taken: frozenset[str] = frozenset()
        self._known: tuple[int, dict[str, str]] = (-1, {})
        self._finished = 0
        self._patience = Patience(
            progress, lambda: rest(LOOK_SECONDS, lambda: stop.requested), lambda: stop.due
        )

    def run(self) -> int:
        """Gives the number of evaluations that were finished.

        Raises JudgeError: the fleet, or the store for long, cannot be reached; what was judged was
        given back.
        """
        try:
            while not self._stop.requested:
                if self._patience.insist(self._over):
                    break
                rest(LOOK_SECONDS, lambda: self._stop.requested)
        finally:
            for worker in self._workers.values():
                worker.leaving.leave()
            for worker in list(self._workers.values()):
                worker.join()
                self._ended(worker)
        return self._finished

    def _over(self) -> bool:
        """Look around; whether nothing is left to be done."""
        self._look()
        return self._job.once and not self._workers and not self._anything_to_do()

    def _look(self) -> None:
        """A worker for each node that lives; that of another one ends when it has given all back."""
        excluded = self._excluded()
        living = {node.id: node for node in self._fleet.nodes()}
        self._taken = frozenset(node.id for node in living.values() if node.taken)
        for worker in list(self._workers.values()):
            if worker.node.id not in living or living[worker.node.id].draining:
                worker.leaving.leave()
            if worker.node.offer.host in excluded:
                worker.leaving.leave(at_once=True)
            if not worker.is_alive():
                self._ended(worker)
        for node in living.values():
            if self._is_free(node) and (not self._job.once or self._waits_for(node)):
                self._begin(node)

    def _is_free(self, node: Node) -> bool:
        not_now = time.monotonic() < self._not_before.get(node.id, 0.0)
        excluded = node.offer.host in self._known[1]
        return not (excluded or node.draining or not_now or node.id in self._workers)

    def _anything_to_do(self) -> bool:
        return any(self._waits_for(node) for node in self._fleet.nodes() if self._is_free(node))

    def _excluded(self) -> dict[str, str]:
        """Hosts whose canaries took them out; read again only where something new is known of nodes."""
        with self._store.read() as session:
            newest = newest_event(session)
            if newest != self._known[0]:
                self._known = newest, known(session, self._benchmark.sha256).excluded
        return self._known[1]

    def _waits_for(self, node: Node) -> bool:
        seasons = self._seasons(node.offer)
        return waits(self._store, worker_of(node), self._benchmark.sha256, seasons)

    def _begin(self, node: Node) -> None:
        def start(order: Order) -> Task:
            gpus = self._needs(order.asked.world_size).gpus(node.offer)
            return self._fleet.start(node, gpus, order)

        self._say(f"{node.name}: {self._introduced(node.offer)}")
        leaving = Leaving(self._stop)
        worker = NodeWorker(
            self._store,
            replace(
                self._job,
                seasons=lambda: self._seasons(node.offer),
                stirs=self._open.stirs,
                first=self._duty(node, leaving),
            ),
            leaving,
            self._say,
            NodePlace(start, self._benchmark.sha256, leaving.leave, lambda: node.id in self._taken),
            node,
            self._shared,
        )
        self._workers[node.id] = worker
        worker.start()

    def _duty(self, node: Node, leaving: Leaving) -> CanaryDuty | None:
        canary = self._benchmark.canary
        if canary is None or self._needs(canary.world_size, levels=(node.offer.level,)).why_not(
            node.offer
        ):
            return None
        return CanaryDuty(
            self._store,
            self._shared.leases,
            self._benchmark.sha256,
            canary,
            node.offer.host,
            worker_of(node),
            lambda: leaving.due,
            _named(node.name, self._say),
        )

    def _ended(self, worker: "NodeWorker") -> None:
        del self._workers[worker.node.id]
        self._finished += worker.finished
        name = worker.node.name
        if worker.failed:
            self._not_before[worker.node.id] = time.monotonic() + AGAIN_SECONDS
            self._say(f"{name}: nothing for {AGAIN_SECONDS / 60:.0f} min: {worker.failed}")
        elif worker.leaving.node_leaves and not self._stop.requested:
            # Where its node died, Ray says so only a while later.
            self._not_before[worker.node.id] = time.monotonic() + LOST_SECONDS
            self._say(f"{name}: has left")

    def _introduced(self, offer: Offer) -> str:
        hardware = offer.hardware(self._benchmark.device, 1) or "no device"
        return f"{hardware}, level {offer.level}"

    def _needs(self, world_size: int, hardware: str = "", levels: tuple[str, ...] = ()) -> Needs:
        known = self._benchmark
        return Needs(known.sha256, known.device, world_size, hardware, levels, self._version)

    def _seasons(self, offer: Offer) -> frozenset[int]:
        """Those that this node is for."""
        return frozenset(
            season.id
            for season in self._open.seasons()
            if not self._needs(season.world_size, season.hardware, season.levels).why_not(offer)
        )


class NodeWorker(threading.Thread):
    """The worker of a node.

    Attributes:
        failed: why it ended, where it should not have; else empty.
        finished: evaluations that it brought to an end.
    """

    def __init__(
        self,
        store: Store,
        job: Job,
        leaving: Leaving,
        say: OnProgress,
        place: NodePlace,
        node: Node,
        shared: Shared,
    ) -> None:
        super().__init__(name=node.name)
        self.node, self.leaving = node, leaving
        told = _named(node.name, say)
        self._working = Working(store, job, leaving, told, place, worker_of(node), shared)
        self.failed = ""

    @property
    def finished(self) -> int:
        return self._working.finished

    def run(self) -> None:
        """Work until the node leaves; its failure ends this worker alone."""
        try:
            self._working.work()
        except TrainjudgeError as error:
            self.failed = error.message
        except Exception as error:
            self.failed = f"a defect: {type(error).__name__}: {error}"
            raise


def worker_of(node: Node) -> WorkerId:
    """As the store knows it: the machine is the node's, and so is the first word of the name.

    The rest of it names no process for `queue.is_gone`: whether a dispatcher lives cannot be seen from
    another machine, so its lease says it. Names of hosts may be long, and the end of it is what differs.
    """
    name = f"{node.offer.host} node {node.name} of "
    return WorkerId(name + this_worker().name[len(name) - WORKER_CHARACTERS :], node.offer.kernel)


def _named(name: str, say: OnProgress) -> Callable[[str], None]:
    return lambda line: say(f"{name}: {line}")
