"""The machines of an evaluation, as the judge sees them: where its ranks are launched."""

import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Final, Self

from harness import machine
from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.host.timing import hold_machine, machine_held
from harness.machine import Device, Machine
from harness.nodes.key import client_side
from harness.nodes.launched import LaunchOnNodes, RunningNodes
from harness.nodes.loop import Loop
from harness.nodes.node import Node, every, host_and_port
from harness.nodes.words import (
    VERSION,
    Begun,
    Measure,
    Measured,
    Prepare,
    Prepared,
    Start,
)
from harness.reference.task import default_variant
from harness.sandbox import Level
from harness.score.peaks import Peak
from harness.timed.workspace import Workspace

#: Of the network between the sandboxes, which no machine is in. Three digits each, since torchrun puts
#: machines in the order of their addresses as text.
ADDRESSES: Final = "10.77.0.{}"
FIRST: Final = 101
PROGRAMS: Final = ("trainjudge", "python", "torch", "transformers")
ALIKE: Final = (*PROGRAMS, "device", "devices", "driver", "cores")


def _alike(one: str, here: Machine, other: str, there: Machine, fields: Sequence[str]) -> None:
    for name in fields:
        if getattr(here, name) != getattr(there, name):
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{name} is {getattr(here, name)} at {one} and {getattr(there, name)} at {other}: "
                "the machines of an evaluation have to be alike",
            )


class Nodes:
    """Agents that work for this judge, from entering the `with` block until `release` or its end.

    Args:
        addresses: HOST:PORT of each, in the order of the ranks.
        key: file that all share.
        loaded, snapshot: the benchmark; every agent has to hold it.
        world_size: ranks, as many on each machine.

    Raises, when it is entered:
        InputError: the ranks cannot be dealt, or an agent does not hold the benchmark.
        JudgeError: an agent does not answer (NODE_LOST), or works for others (MACHINE_BUSY).
    """

    def __init__(
        self,
        addresses: Sequence[str],
        key: Path,
        loaded: LoadedHparams,
        snapshot: Snapshot,
        world_size: int,
    ) -> None:
        self.addresses = tuple(addresses)
        for address in addresses:
            host_and_port(address)
        count = len(set(addresses))
        if count != len(addresses) or count < 2 or world_size % count:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{world_size} ranks cannot be dealt evenly to {len(addresses)} agents: there have to be "
                "two or more, each of another machine",
            )
        self._ranks = world_size // count
        self._context = client_side(key)
        self._loaded, self._snapshot = loaded, snapshot
        self._ends: list[Node] = []
        self._doubts: list[str] = []
        self._held: socket.socket | None = None
        self._loop: Loop | None = None

    def __enter__(self) -> Self:
        self._loop = Loop()
        try:
            self._prepared: list[Prepared] = self._loop.run(self._connect())
            self._check_alike()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let the machines go: what they have of the evaluation is removed there."""
        if self._loop is not None:
            self._loop.run(self._close())
            self._loop.close()
            self._loop = None

    async def _connect(self) -> list[Prepared]:
        for address in self.addresses:
            self._ends.append(await Node.connect(address, self._context))
        manifest = self._snapshot.manifest
        return await every(
            *(
                node.ask(
                    Prepare(
                        version=VERSION,
                        hparams_sha256=self._loaded.sha256,
                        model_sha256=manifest.model_sha256,
                        data_sha256=manifest.data_sha256,
                        index=index,
                        ranks=self._ranks,
                    ),
                    Prepared,
                )
                for index, node in enumerate(self._ends)
            )
        )

    async def _close(self) -> None:
        for node in self._ends:
            await node.close()
        self._ends.clear()

    def _check_alike(self) -> None:
        """Raises InputError: machines differ in what shapes the numbers or the times."""
        machines = self._machines()
        first = machines[0]
        for address, found in zip(self.addresses, machines, strict=True):
            _alike(self.addresses[0], first, address, found, ALIKE)
            # The reference is trained here: its kernels have to be those of the ranks.
            _alike("the judge", machine.describe("cpu", 1), address, found, PROGRAMS)
        fabrics = [prepared.fabric for prepared in self._prepared]
        if len(set(fabrics)) < len(fabrics):
            raise InputError(Code.BAD_ARGUMENT, f"two agents have the same --fabric: {fabrics}")

    def _machines(self) -> list[Machine]:
        return [Machine.model_validate_json(prepared.machine) for prepared in self._prepared]

    # --- what `evaluate` asks of a place --------------------------------------------------------

    @property
    def nodes(self) -> int:
        return len(self.addresses)

    @property
    def level(self) -> Level:
        """At which the agents isolate."""
        return Level(self._prepared[0].level)

    def device(self, hparams: Hparams, world_size: int) -> Device:
        """Raises InputError: this machine has too few for the reference."""
        found = self._prepared[0].device
        return machine.pick_device(found, default_variant(hparams, world_size).world_size)

    def machine(self, device: Device, world_size: int) -> Machine:
        """The first machine, with the devices of all."""
        machines = self._machines()
        devices = tuple(name for found in machines for name in found.devices)
        return machines[0].model_copy(update={"devices": devices})

    def warnings(self, device: Device, world_size: int) -> list[str]:
        return [
            f"{address}: {warning}"
            for address, prepared in zip(self.addresses, self._prepared, strict=True)
            for warning in prepared.warnings
        ]

    @contextmanager
    def timing(self, tell: Callable[[], None]) -> Iterator[None]:
        """Every agent keeps its machine from others. This one is kept too, if no agent on it does so."""
        self._held = hold_machine()
        try:
            yield
        finally:
            if self._held is not None:
                self._held.close()

    def verifying(self, tell: Callable[[], None]) -> AbstractContextManager[object]:
        """Nothing more is asked of agents. One may be on this machine, which the reference keeps busy."""
        self.release()
        return nullcontext() if self._held is not None else machine_held(tell)

    def peak(self, machine: Machine, hparams: Hparams, world_size: int) -> Peak:
        """Of one device; where it is measured, on all machines at once, their mean."""
        assert self._loop is not None
        found = self._loop.run(self._measured())
        tflops = fmean(each.tflops for each in found)
        self._doubts = [
            f"{address}: {doubt}"
            for address, each in zip(self.addresses, found, strict=True)
            for doubt in each.doubts
        ]
        return Peak(tflops, found[0].source, f"{len(found)} machines, each {found[0].device}")

    async def _measured(self) -> list[Measured]:
        return await every(*(node.ask(Measure(), Measured) for node in self._ends))

    def settled(self, before: Peak, after: Peak) -> tuple[Peak, list[str]]:
        """Agents know the largest that their machine has shown, so the second is no smaller."""
        return after, self._doubts

    @contextmanager
    def launch(
        self,
        hparams: Hparams,
        snapshot: Snapshot,
        device: Device,
        world_size: int,
        workspace: Workspace,
    ) -> Iterator[LaunchOnNodes]:
        assert self._loop is not None
        running = RunningNodes(self._loop, self._ends)
        launched = LaunchOnNodes(self._loop, self._ends, running, hparams, self._ranks, workspace)
        try:
            fabrics = tuple(prepared.fabric for prepared in self._prepared)
            self._loop.run(self._start(fabrics, workspace))
            yield launched
        finally:
            running.close()

    async def _start(self, fabrics: tuple[str, ...], workspace: Workspace) -> None:
        number = 1 + secrets.randbelow(2**24 - 1)
        addresses = tuple(ADDRESSES.format(FIRST + index) for index in range(len(fabrics)))
        for node in self._ends:
            node.sockets = workspace.sockets
        await every(*(node.ask(Start(number, fabrics, addresses), Begun) for node in self._ends))
