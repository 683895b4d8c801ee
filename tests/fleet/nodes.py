"""Real raylets on this machine, each with a seat of its own as if it were a machine of its own."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from harness.fleet.node import SEAT, HeldBenchmark, Seat
from harness.fleet.offer import Offer
from harness.machine import cores, cpu_name
from tests.board.acting import STANDIN
from tests.board.examples import (
    HPARAMS_SHA256,
    accepted_result,
    error_result,
    rejected_result,
)
from tests.board.processes import wait_until

if TYPE_CHECKING:
    from harness.fleet.cluster import Directory

REQUIRED = "TRAINJUDGE_REQUIRE_RAY"
VERSION = version("trainjudge")
#: Of Ray's object store; what travels is small.
STORE_BYTES = 80_000_000


def require_ray() -> None:
    """Skip the test without Ray, or fail it if it is said to be there."""
    if find_spec("ray") is None:
        missing = "Ray is not installed: pip install 'trainjudge[fleet]'"
        (pytest.fail if os.environ.get(REQUIRED) == "1" else pytest.skip)(missing)


@dataclass
class Nodes:
    """A cluster: its head, which judges nothing, and nodes that come and go.

    Attributes:
        folder: where seats lie, and what judges say of themselves.
        cluster: Ray's.
    """

    folder: Path
    cluster: Any
    started: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str, benchmark: str = HPARAMS_SHA256, **changes: Any) -> Offer:
        """A node of the examples' hardware, with the stand-in for a judge.

        Args:
            name: of the machine that it is taken for.
            benchmark: hash of what it holds.
            changes: of its `Seat`, or of its `Offer`; `data`: its data folder.
        """
        data = changes.pop("data", None)
        in_seat = {key: changes.pop(key) for key in tuple(changes) if key in Seat.model_fields}
        offer = Offer(
            node=f"{name}-{uuid4().hex[:6]}", host=name, kernel=str(uuid4()), version=VERSION,
            cores=cores(), cpu=cpu_name(), gpus=2, gpu="NVIDIA H100 80GB HBM3", level="docker",
            benchmarks=(benchmark,),
        ).model_copy(update=changes)  # fmt: skip
        seat = Seat(
            offer=offer,
            benchmarks={benchmark: HeldBenchmark(hparams=Path("h"), snapshot=Path("s"))},
            options=("--results", str(self.folder), "--mark", str(self.folder / f"marks-{name}")),
            judge=STANDIN,
            lock=f"\0test-{uuid4()}",
        ).model_copy(update=in_seat)
        file = self.folder / f"{offer.node}.json"
        file.write_text(seat.model_dump_json())
        self.started[name] = self.cluster.add_node(
            num_cpus=1,
            num_gpus=offer.gpus,
            object_store_memory=STORE_BYTES,
            resources=offer.resources(),
            env_vars={
                SEAT: str(file),
                "RAY_memory_monitor_refresh_ms": "0",
                **({"TRAINJUDGE_DATA": str(data)} if data else {}),
            },
        )
        return offer

    def kill(self, name: str) -> None:
        """As kill -9 of the raylet does it, or as a machine without power."""
        self.cluster.remove_node(self.started.pop(name), allow_graceful=False)

    def kill_head(self) -> None:
        """All of its processes at once; the cluster is of no use afterwards."""
        self.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def directory(self) -> "Directory":
        """Imported late: without Ray these tests are skipped."""
        from harness.fleet.cluster import Directory

        return Directory(self.address)

    def remove_all(self) -> None:
        for name in list(self.started):
            # Asked to end, it says so, and is not missed for 15 s first.
            self.cluster.remove_node(self.started.pop(name), allow_graceful=True)
        directory = self.directory()
        wait_until(lambda: not directory.nodes())

    def marks(self, name: str) -> list[tuple[str, int]]:
        """What judges on a node did: starts or ends, and their process."""
        path = self.folder / f"marks-{name}"
        lines = path.read_text().splitlines() if path.exists() else []
        words = [line.split(" ", 2) for line in lines]
        return [(event, int(process)) for event, process, _ in words]


@contextmanager
def cluster(folder: Path) -> Iterator[Nodes]:
    """A head without nodes; all are ended afterwards."""
    require_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    for name, result in (
        ("accepted", accepted_result()),
        ("rejected", rejected_result()),
        ("error", error_result(message="a cable was pulled")),
    ):
        (folder / f"{name}.json").write_text(result.model_dump_json())
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield Nodes(folder, made)
    finally:
        with suppress(Exception):
            sys.modules["ray"].shutdown()
        made.shutdown()
