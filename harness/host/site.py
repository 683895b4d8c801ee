"""The machine of an evaluation, or its machines: what `evaluate` has to know of where ranks run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from harness import machine
from harness.benchmark.hparams import Hparams
from harness.host.timing import machine_held
from harness.machine import Device, Machine
from harness.sandbox import Sandbox
from harness.score.peaks import Peak
from harness.timed.launch import Here, Place


class Site(Place, Protocol):
    """Where ranks run, what is there, and who may time on it.

    Attributes:
        nodes: how many machines.
    """

    @property
    def nodes(self) -> int: ...

    def device(self, hparams: Hparams, world_size: int) -> Device:
        """What they compute on. Raises InputError: there are too few."""

    def machine(self, device: Device, world_size: int) -> Machine:
        """What a result says of it."""

    def warnings(self, device: Device, world_size: int) -> list[str]:
        """What a reader of the result has to know of it."""

    def timing(self, tell: Callable[[], None]) -> AbstractContextManager[object]:
        """The right to time there; `tell` is called once if there is something to wait for."""

    def verifying(self, tell: Callable[[], None]) -> AbstractContextManager[object]:
        """Inside of `timing`, when all runs are timed: the right to keep this machine busy."""

    def peak(self, machine: Machine, hparams: Hparams, world_size: int) -> Peak:
        """Of one device."""

    def settled(self, before: Peak, after: Peak) -> tuple[Peak, list[str]]:
        """Of what was measured before and after the runs: what counts, and what a reader has to know."""


def spare_gpus(sandbox: Sandbox, device: Device, ranks: int) -> list[str]:
    """A sentence where ranks could use GPUs that do not count."""
    there = machine.gpu_files() if device == "cuda" else 0
    if there <= ranks or sandbox.holds_back_gpus(ranks):
        return []
    return [
        f"MFU counts {ranks} of this machine's {there} GPUs, and at level {sandbox.level} the train file "
        "could use all of them; docker gives it those that count"
    ]


@dataclass(frozen=True)
class ThisMachine(Here):
    """The judge's own."""

    @property
    def nodes(self) -> int:
        return 1

    def device(self, hparams: Hparams, world_size: int) -> Device:
        return machine.pick_device(hparams.world.device, world_size)

    def machine(self, device: Device, world_size: int) -> Machine:
        return machine.describe(device, world_size)

    def warnings(self, device: Device, world_size: int) -> list[str]:
        return spare_gpus(self.sandbox, device, world_size)

    def timing(self, tell: Callable[[], None]) -> AbstractContextManager[object]:
        """To the end: the reference keeps all cores busy too."""
        return machine_held(tell)

    def verifying(self, tell: Callable[[], None]) -> AbstractContextManager[object]:
        return nullcontext()

    def peak(self, machine: Machine, hparams: Hparams, world_size: int) -> Peak:
        from harness.host.peak import peak_of

        return peak_of(machine, hparams, world_size)

    def settled(self, before: Peak, after: Peak) -> tuple[Peak, list[str]]:
        from harness.host.known_peak import settled

        return settled(before, after)
