"""Ray: who is in the cluster, a judging task on a node, draining.

No other module imports it. What is private of it is for asking the head from a machine outside the cluster.
"""

import os
from contextlib import suppress
from typing import Any, Final

from harness.fleet.token import has_token

# Read when Ray is imported. Where there is a token `ray start` asks for it; clients show none unasked.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if has_token():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray
from ray._private.state import GlobalState
from ray._raylet import GcsClient, GcsClientOptions  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.errors import Code, InputError, JudgeError
from harness.fleet.head import check_reachable
from harness.fleet.node import work_here
from harness.fleet.offer import MACHINE, Node, Offer
from harness.fleet.reports import Ended, Lost, Measure, Order, Report, Unable
from harness.protocol.text import one_line

#: In words; what is not here speaks for itself.
CAUSES: Final[dict[type[RayError], str]] = {
    NodeDiedError: "its node died",
    WorkerCrashedError: "Ray's worker on its node was killed",
    OutOfMemoryError: "Ray's worker on its node was killed for memory",
    TaskUnschedulableError: "its node was gone before it began",
    TaskCancelledError: "it was ended on its node",
}
#: Ray's own word for a node that is to end, and must not refuse because it is busy.
DRAIN: Final = "DRAIN_NODE_REASON_PREEMPTION"
#: Why a node is gone: it was drained so.
DRAINED: Final = 3
#: A cancelled task has that long to end its judge; then its process is killed.
CANCEL_SECONDS: Final = 75.0
#: To remove its folder, and to end a process.
CLEAN_SECONDS: Final = 30.0


class Directory:
    """Who is in the cluster; can be asked from any machine that reaches its head.

    Args:
        address: of the head, HOST:PORT.

    Raises InputError(BAD_ARGUMENT): nothing answers there.
    """

    def __init__(self, address: str) -> None:
        check_reachable(address)
        self._address = address
        self._state = GlobalState()
        options = GcsClientOptions.create(
            address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
        )
        self._state._initialize_global_state(options)

    def nodes(self) -> tuple[Node, ...]:
        """All of ours that live, by name. Raises JudgeError: the head cannot be reached."""
        rows, draining = self._ask()
        free = self._state.available_resources_per_node()
        found = [_node(row, draining, free) for row in rows if row["Alive"]]
        return tuple(sorted((each for each in found if each), key=lambda node: node.name))

    def was_drained(self, node: Node) -> bool:
        """Whether a node that lives no more had been asked to leave. Raises JudgeError."""
        rows, _ = self._ask()
        return any(row["NodeID"] == node.id and row["DeathReason"] == DRAINED for row in rows)

    def _ask(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        try:
            return self._state.node_table(), self._state.get_draining_nodes()
        except Exception as error:  # Ray raises whatever it has
            raise JudgeError(
                Code.INTERNAL, f"the fleet at {self._address} cannot be reached: {error}"
            ) from error

    def drain(self, node: Node) -> None:
        """Let it finish what it has; then it leaves. Raises JudgeError."""
        reason = autoscaler_pb2.DrainNodeReason.Value(DRAIN)
        accepted, why = GcsClient(address=self._address).drain_node(
            node.id, reason, "asked to by an organiser", 0
        )
        if not accepted:
            raise JudgeError(Code.INTERNAL, f"node {node.name} cannot be drained: {why}")


class Cluster(Directory):
    """Runs tasks there; this machine has to be part of the cluster, as its head is.

    Raises InputError(BAD_ARGUMENT): there is no cluster at that address, or this machine is not in it.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level="error", configure_logging=False
            )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"no fleet at {address}, or this machine is not part of it: {one_line(str(error))}",
            ) from None
        # max_retries: trying again is the store's decision, and has a cause there.
        self._work = ray.remote(max_retries=0, num_cpus=0, num_returns="streaming")(work_here)

    def start(self, node: Node, gpus: int, order: Order | Measure) -> "Task":
        """Have a node judge a file, or measure, with the machine to itself."""
        where = NodeAffinitySchedulingStrategy(node.id, soft=False)
        devices: dict[str, Any] = {"num_gpus": gpus} if gpus else {}
        if gpus and node.accelerator:
            devices["accelerator_type"] = node.accelerator
        alone = {MACHINE: 1}
        task = self._work.options(scheduling_strategy=where, resources=alone, **devices)
        return Task(task.remote(order))

    def close(self) -> None:
        """Leave the cluster; what still runs for us is ended."""
        ray.shutdown()


class Task:
    """A file that is judged on a node."""

    def __init__(self, reports: Any) -> None:
        self._reports = reports
        self._over = self._said_all = False

    def next(self, seconds: float) -> Report | None:
        """The next report; None where none came in time."""
        ready, _ = ray.wait([self._reports], timeout=seconds)
        if not ready:
            return None
        try:
            report: Report = ray.get(next(self._reports))
        except StopIteration:
            self._over = True
            return Lost("its node ended it without a word")
        except RayError as error:
            self._over = True
            return Lost(_in_words(error))
        self._said_all = isinstance(report, Ended | Unable)
        return report

    def end(self) -> None:
        """End the judge if it has not, and wait until nothing of it is left on the node."""
        if self._said_all and self._ends_within(CLEAN_SECONDS):
            return  # nothing interrupts its cleaning up
        for force, seconds in ((False, CANCEL_SECONDS), (True, CLEAN_SECONDS)):
            if self._over:
                return
            with suppress(RayError):
                ray.cancel(self._reports, force=force)
            if self._ends_within(seconds):
                return

    def _ends_within(self, seconds: float) -> bool:
        while not self._over and self.next(seconds) is not None:
            pass
        return self._over


def _node(
    row: dict[str, Any], draining: dict[str, int], free: dict[str, dict[str, float]]
) -> Node | None:
    resources = row["Resources"]
    offer = Offer.of(resources)
    if offer is None:
        return None
    start = "accelerator_type:"
    accelerators = [name.removeprefix(start) for name in resources if name.startswith(start)]
    name = row["NodeID"]
    taken = not free.get(name, {}).get(MACHINE, 0.0)
    return Node(name, offer, name in draining, "".join(accelerators[:1]), taken)


def _in_words(error: RayError) -> str:
    for kind, words in CAUSES.items():
        if isinstance(error, kind):
            return words
    return f"its node failed: {one_line(str(error).strip().splitlines()[-1])}"
