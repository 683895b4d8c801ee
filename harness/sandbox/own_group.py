"""A control group of a sandbox's own, where this process may make one: then the kernel holds its limits.

Polling decides what is over the limit and says so in a sentence; but between two looks memory fills at some
GB/s, and a look may be slow. What the kernel holds cannot be passed for a moment. Version 1 and 2:
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html and .../cgroup-v2.html.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.sandbox.judge_process import judge_lives, this_process

ROOT = Path("/sys/fs/cgroup")
PREFIX = "trainjudge-"


@dataclass(frozen=True)
class OwnGroup:
    """Attributes:
    version: of control groups, 1 or 2.
    folders: of each controller in version 1, the one folder in version 2.
    """

    version: int
    folders: tuple[Path, ...]

    @classmethod
    def make(cls, memory_bytes: int, tasks: int) -> Self | None:
        """A new group with these limits; None where this process may not make one, as mostly.

        Args:
            memory_bytes: of all that the kernel counts: also files in memory, and what it needs itself.
            tasks: processes and threads.
        """
        name = f"{PREFIX}{_mark()}-{secrets.token_hex(4)}"
        for version, parents in _places():
            settings = {
                1: (
                    {
                        "memory.limit_in_bytes": memory_bytes,
                        "memory.memsw.limit_in_bytes": memory_bytes,
                    },
                    {"pids.max": tasks},
                ),
                2: (
                    {
                        "memory.max": memory_bytes,
                        "memory.swap.max": 0,
                        "memory.oom.group": 1,
                        "pids.max": tasks,
                    },
                ),
            }[version]
            group = cls(version, tuple(parent / name for parent in parents))
            try:
                for folder, values in zip(group.folders, settings, strict=True):
                    folder.mkdir()
                    for file, value in values.items():
                        # Swap is counted only where the kernel was told to.
                        if (folder / file).exists():
                            (folder / file).write_text(str(value))
            except OSError:
                group.remove()
                continue
            return group
        return None

    def join(self) -> None:
        """This process, and all that it will start, belong to the group from now on."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text("0")

    def memory_bytes(self) -> int:
        """Anonymous and shared memory, files in memory included: also what no process has mapped in."""
        names = {1: ("total_rss", "total_shmem"), 2: ("anon", "shmem")}[self.version]
        found = 0
        with contextlib.suppress(OSError, ValueError):
            for line in (self.folders[0] / "memory.stat").read_text().splitlines():
                name, _, value = line.partition(" ")
                found += int(value) if name in names else 0
        return found

    def killed_for_memory(self) -> bool:
        """Whether the kernel has killed a process because the group had no memory left."""
        events = self.folders[0] / ("memory.oom_control" if self.version == 1 else "memory.events")
        with contextlib.suppress(OSError, ValueError):
            for line in events.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value) > 0
        return False

    def remove(self) -> None:
        """It has to be empty; what is not stays until `validator clean`."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def left_groups() -> list[Path]:
    """Groups of judges that were killed, and their supervisors with them."""
    found = []
    for _, parents in _places():
        for parent in parents:
            for folder in sorted(parent.glob(f"{PREFIX}*")):
                words = folder.name.removeprefix(PREFIX).split("-")
                if (
                    len(words) == 4
                    and judge_lives(f"pid:[{words[0]}] {words[1]} {words[2]}") is False
                ):
                    found.append(folder)
    return found


def _mark() -> str:
    """Names this process, so that others can tell whether it lives."""
    namespace, pid, start = this_process().split(" ")
    return f"{namespace.removeprefix('pid:[').removesuffix(']')}-{pid}-{start}"


def _places() -> Iterator[tuple[int, tuple[Path, ...]]]:
    """Where groups can be made below, best first: for each version, the folder of each controller."""
    mine: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mine |= {controller: path.lstrip("/") for controller in controllers.split(",")}
    if "memory" in mine and "pids" in mine:
        parents = tuple(ROOT / name / mine[name] for name in ("memory", "pids"))
        if all(os.access(parent, os.W_OK) for parent in parents):
            yield 1, parents
    for path in dict.fromkeys((mine.get("", ""), "")):
        parent = ROOT / path
        with contextlib.suppress(OSError):
            enabled = (parent / "cgroup.subtree_control").read_text().split()
            if {"memory", "pids"} <= set(enabled) and os.access(parent, os.W_OK):
                yield 2, (parent,)
