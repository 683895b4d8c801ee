"""What a node offers and what a season needs: Ray's custom resources, and which node fits which season."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote

from harness.board.hardware import in_words
from harness.records import Record

PREFIX: Final = "trainjudge"
#: A machine to itself: there is one of it on each node, and whatever is timed takes it.
MACHINE: Final = f"{PREFIX}/machine"
GPUS: Final = f"{PREFIX}/gpus"
#: Fields of `Offer` that are a resource named after their value. Ray has no other room for words.
WORDS: Final = ("node", "host", "kernel", "version", "gpu", "level")


class Offer(Record):
    """What a node has.

    Attributes:
        node: its name in the fleet; no other has it, nor this one after a restart.
        host: its machine's name, for people.
        kernel: id of the running kernel; nodes in containers on one machine share it.
        version: of this program.
        cores, cpu: of its CPUs.
        gpus, gpu: how many, all of that name; 0 and empty: none.
        level: of isolation at which it judges.
        benchmarks: hashes of the hparams files whose snapshot it holds.
    """

    node: str
    host: str
    kernel: str
    version: str
    cores: int
    cpu: str
    gpus: int
    gpu: str
    level: str
    benchmarks: tuple[str, ...]

    def resources(self) -> dict[str, float]:
        """For `ray start --resources`."""
        named = {_of(field, str(getattr(self, field))): 1.0 for field in WORDS}
        held = {_of("benchmark", each): 1.0 for each in self.benchmarks}
        cores = {_of("cpu", self.cpu): float(self.cores)}
        return {MACHINE: 1.0, GPUS: float(self.gpus), **named, **held, **cores}

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Self | None:
        """Back from what Ray says of a node; None: it is none of ours."""
        if MACHINE not in resources:
            return None
        words = {field: _values(resources, field)[0] for field in WORDS}
        (cpu,) = _values(resources, "cpu")
        return cls(
            cpu=cpu,
            cores=round(resources[_of("cpu", cpu)]),
            gpus=round(resources.get(GPUS, 0.0)),
            benchmarks=tuple(sorted(_values(resources, "benchmark"))),
            **words,
        )

    def hardware(self, device: str, world_size: int) -> str | None:
        """The hardware class of evaluations here, as boards name it; None: too few GPUs."""
        if device == "cpu" or (device == "auto" and not self.gpus):
            return in_words("cpu", self.cores, (self.cpu,))
        return (
            in_words("cuda", self.cores, (self.gpu,) * world_size)
            if self._has(world_size)
            else None
        )

    def _has(self, world_size: int) -> bool:
        return self.gpus >= world_size


@dataclass(frozen=True)
class Node:
    """A node that lives.

    Attributes:
        id: Ray's.
        offer: what it has.
        draining: it takes nothing more.
        accelerator: Ray's name for its GPUs; empty: it has none, or none that Ray knows.
        taken: its machine is somebody's, as far as Ray knows: that is some seconds old.
    """

    id: str
    offer: Offer
    draining: bool
    accelerator: str
    taken: bool = False

    @property
    def name(self) -> str:
        return self.offer.node


@dataclass(frozen=True)
class Needs:
    """Of a season.

    Attributes:
        hparams_sha256: of its benchmark.
        device: as the benchmark names it: auto, cpu or cuda.
        world_size: ranks.
        hardware: class of the main board; empty: any will do.
        levels: of isolation that may be ranked.
        version: of this program, on both sides.
    """

    hparams_sha256: str
    device: str
    world_size: int
    hardware: str
    levels: tuple[str, ...]
    version: str

    def why_not(self, offer: Offer) -> str:
        """Why a node is not for this season; empty: it is."""
        hardware = offer.hardware(self.device, self.world_size)
        if offer.version != self.version:
            return (
                f"it has version {offer.version} of this program, and the dispatcher {self.version}"
            )
        if self.hparams_sha256 not in offer.benchmarks:
            return "it does not hold the benchmark's snapshot"
        if offer.level not in self.levels:
            return f"it isolates at level {offer.level}, and {', '.join(self.levels)} may be ranked"
        if hardware is None:
            return f"it has {offer.gpus} GPUs for {self.world_size} ranks"
        if self.hardware and hardware != self.hardware:
            return f"it is of the class {hardware}, and the season of {self.hardware}"
        return ""

    def gpus(self, offer: Offer) -> int:
        """How many an evaluation has on that node."""
        return 0 if self.device == "cpu" or not offer.gpus else self.world_size


def _of(field: str, value: str) -> str:
    # Between resources Ray itself writes commas.
    return f"{PREFIX}/{field}/{quote(value, safe='')}"


def _values(resources: Mapping[str, float], field: str) -> list[str]:
    start = f"{PREFIX}/{field}/"
    return [unquote(name[len(start) :]) for name in resources if name.startswith(start)]
