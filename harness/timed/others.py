"""What other programs did with the cores while a sandbox ran: whose fault is it if that took too long?

Only what surely is somebody else's counts, since who is to blame for the load must not get an evaluation
for free by it: programs that ran before the sandbox and run after it, are not below the judge, and do
nothing on behalf of a sandbox, as the kernel's threads and a container engine do. At a level that reaches
the machine's services, a submission could make those work: there nobody is excused.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

#: Above this share of all cores a result says that it was disturbed, ...
NOTED_SHARE: Final = 0.05
#: ... and above that one, what took too long is not held against a submission.
EXCUSED_SHARE: Final = 0.25
#: By the first 15 characters of their names, as the kernel keeps them.
ENGINES: Final = ("dockerd", "containerd", "runc", "podman", "conmon", "crun", "docker-proxy")
KERNEL_THREADS: Final = 2

#: Process id, and when it began in ticks: an id is used again.
_Key = tuple[int, int]


@dataclass(frozen=True)
class _Process:
    key: _Key
    parent: int
    name: str
    seconds: float


@dataclass(frozen=True)
class Reading:
    """At one moment: seconds of wall time, and CPU seconds of every program that is not ours."""

    at: float
    seconds: dict[_Key, float]

    @classmethod
    def now(cls) -> Self:
        processes = {process.key[0]: process for process in _processes()}
        ours = _below(os.getpid(), processes)
        return cls(
            time.monotonic(),
            {
                process.key: process.seconds
                for pid, process in processes.items()
                if pid not in ours
                and KERNEL_THREADS not in (pid, process.parent)
                and not process.name.startswith(ENGINES)
            },
        )


def others_share(before: Reading, after: Reading) -> float:
    """Of all that the machine's cores could have done between two readings, what others did: 0 to 1."""
    both = before.seconds.keys() & after.seconds.keys()
    worked = sum(after.seconds[key] - before.seconds[key] for key in both)
    possible = (after.at - before.at) * (os.cpu_count() or 1)
    return min(1.0, worked / possible) if possible > 0 else 0.0


def _processes() -> Iterator[_Process]:
    """All that can be seen; inside a container these are its own."""
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with suppress(OSError, ValueError, IndexError):  # it has gone
            text = Path(entry.path, "stat").read_bytes()
            # The name in parentheses is the program's own choice and may hold anything.
            name, _, rest = text.partition(b"(")[2].rpartition(b")")
            fields = rest.split()
            yield _Process(
                key=(int(entry.name), int(fields[19])),
                parent=int(fields[1]),
                name=name.decode(errors="replace"),
                seconds=(int(fields[11]) + int(fields[12])) / ticks,
            )


def _below(root: int, processes: dict[int, _Process]) -> set[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found, waiting = {root}, [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found
