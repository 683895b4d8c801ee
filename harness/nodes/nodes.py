"""The machines of an evaluation, as the judge sees them: where its ranks are launched."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Final, Self

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.host.timing import machine_held
from harness.machine import Device, Machine
from harness.nodes.key import client_side
from harness.nodes.launched import LaunchOnNodes, RunningNodes
from harness.nodes.loop import Loop
from harness.nodes.node import Node, every
from harness.nodes.words import (
    VERSION,
    Begun,
    Measure,
    Measured,
    Prepare,
    Prepared,
    Start,
)
from harness.sandbox import Level
from harness.score.peaks import Peak
from harness.timed.workspace import Workspace

#: Of the network between the sandboxes, which no machine is in. Three digits each, since torchrun puts
#: machines in the order of their addresses as text.
ADDRESSES: Final = "10.77.0.{}"
FIRST: Final = 101


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
        self._world_size = world_size
        if len(set(addresses)) != len(addresses) or world_size % len(addresses):
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{world_size} ranks cannot be dealt to {len(addresses)} different machines evenly",
            )
        self._context = client_side(key)
        self._prepare = Prepare(
            version=VERSION,
            hparams_sha256=loaded.sha256,
            model_sha256=snapshot.manifest.model_sha256,
            data_sha256=snapshot.manifest.data_sha256,
            ranks=world_size // len(addresses),
            world_size=world_size,
        )
        self._ends: list[Node] = []
        self._doubts: list[str] = []
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
        return await every(*(node.ask(self._prepare, Prepared) for node in self._ends))

    async def _close(self) -> None:
        for node in self._ends:
            node.close()
        self._ends.clear()

    def _check_alike(self) -> None:
        """Raises InputError: machines differ in what shapes the numbers or the times."""
        machines = self._machines()
        first = machines[0]
        for address, found in zip(self.addresses, machines, strict=True):
            for name in ("device", "devices", "cores", "trainjudge", "torch", "transformers"):
                here, there = getattr(first, name), getattr(found, name)
                if here != there:
                    raise InputError(
                        Code.BAD_ARGUMENT,
                        f"{name} is {here} at {self.addresses[0]} and {there} at {address}: "
                        "the machines of an evaluation have to be alike",
                    )
        if len({prepared.level for prepared in self._prepared}) > 1:
            raise InputError(Code.BAD_ARGUMENT, "the agents isolate at different levels")

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
        return self._prepared[0].device

    def machine(self, device: Device, world_size: int) -> Machine:
        """The first machine, with the devices of all."""
        machines = self._machines()
        devices = tuple(name for found in machines for name in found.devices)
        return machines[0].model_copy(update={"devices": devices})

    def timing(self, tell: Callable[[], None]) -> AbstractContextManager[object]:
        """Every agent keeps its machine from others."""
        return nullcontext()

    def verifying(self, tell: Callable[[], None]) -> AbstractContextManager[object]:
        """Nothing more is asked of agents. One may be on this machine, which the reference keeps busy."""
        self.release()
        return machine_held(tell)

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
        launched = LaunchOnNodes(self._loop, self._ends, running, hparams, workspace)
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
        await every(
            *(
                node.ask(Start(index, number, fabrics, addresses), Begun)
                for index, node in enumerate(self._ends)
            )
        )
