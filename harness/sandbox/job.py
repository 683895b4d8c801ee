"""What a sandbox is asked to run, and what it says when it has ended: plain values, no behaviour.

Imports the standard library only: the supervisor starts with this module and has to start quickly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.benchmark.rules import Limits


class Level(StrEnum):
    """Isolation, best first. `docs/sandbox.md` says what each does and does not protect from."""

    DOCKER = "docker"
    BUBBLEWRAP = "bubblewrap"
    USER = "user"
    NONE = "none"


@dataclass(frozen=True)
class Fabric:
    """A network of a sandbox's own, to the other sandboxes of its evaluation and nowhere else: a VXLAN
    (RFC 7348) between their machines, whose end on each exists inside the sandbox alone.

    Attributes:
        number: of the network, 1 to 2^24 - 1; no two evaluations at a time have the same.
        index: of this machine among all.
        machines: the IPv4 address of each, between which packets go wrapped; two at least.
        addresses: of each machine's sandbox in the network.
    """

    number: int
    index: int
    machines: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Meeting:
    """How torchrun finds that of the other machines: the first one has the store that all others ask.

    Attributes:
        fabric: the network over which they meet.
        port: of the store.
    """

    fabric: Fabric
    port: int


@dataclass(frozen=True)
class Job:
    """One command and all that it may see. Paths are absolute, and the same inside and outside.

    Attributes:
        argv: the command; its first element is an absolute path.
        code: folder put on PYTHONPATH, read-only (`code_folder` makes one).
        read_only: further files and folders that the command can read.
        writable: folders that it can write; given to the sandbox's user where that is another one.
        private: folders of `read_only` that no other user but the judge may enter while it runs.
        environment: added to the clean environment; nothing of the judge's own is passed on.
        limits: sizes and counts that are enforced; the wall times in it are the caller's business.
        outbox: one of `writable`, whose bytes are limited; None: nothing is watched.
        gpus: how many NVIDIA devices it needs; 0: it may open none. Levels `docker` and `bubblewrap` give
            exactly so many, the others all that there are.
        fabric: a network to other sandboxes; None: it has none at levels `docker` and `bubblewrap`.
    """

    argv: tuple[str, ...]
    code: Path
    read_only: tuple[Path, ...]
    writable: tuple[Path, ...]
    environment: Mapping[str, str]
    limits: "Limits"
    outbox: Path | None = None
    private: tuple[Path, ...] = ()
    gpus: int = 0
    fabric: Fabric | None = None

    @property
    def handed_over(self) -> tuple[Path, ...]:
        """Folders whose owner or mode changes for the sandbox's user, and is changed back at its end."""
        return (*self.writable, *self.private)


class EndReason(StrEnum):
    """Why a sandbox ended. Time is not among them: the clock is the judge's."""

    EXITED = "exited"
    STOPPED = "stopped"
    MEMORY = "memory"
    PROCESSES = "processes"
    OUTBOX = "outbox"


@dataclass(frozen=True)
class Ending:
    """The end of a sandbox; by the time it exists, no process of the sandbox does.

    Attributes:
        reason: what ended it.
        exit_status: of the command as a shell shows it (128 + n for signal n), None when it was
            stopped before it had one.
        detail: a sentence for the person who reads the verdict.
    """

    reason: EndReason
    exit_status: int | None
    detail: str


@dataclass(frozen=True)
class Availability:
    """Whether a level works on this machine; `reason` says why it does not, and what to do."""

    level: Level
    available: bool
    reason: str
