"""What the kernel counts for a control group, in version 1 and 2: tasks, and kills for want of memory.

Read from /proc and /sys, which costs microseconds; asking the engine costs milliseconds of its own time,
and it may be gone.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ControlGroup:
    """The files to read: https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/."""

    tasks_file: Path
    memory_file: Path

    @classmethod
    def of(cls, pid: int, container: str) -> Self | None:
        """The group of a container's first process; None where it cannot be seen from here.

        Args:
            container: part of the group's name. It is compared, because a judge that is in a container
                itself would find another process under that id.
        """
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return None
        found = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path.lstrip("/")
        if "pids" in found and "memory" in found:
            group = cls(
                ROOT / "pids" / found["pids"] / "pids.current",
                ROOT / "memory" / found["memory"] / "memory.oom_control",
            )
        else:
            folder = ROOT / found.get("", "")
            group = cls(folder / "pids.current", folder / "memory.events")
        named = all(container in str(file) for file in (group.tasks_file, group.memory_file))
        return group if named and group.tasks_file.exists() else None

    def tasks(self) -> int:
        """Processes and threads; 0 when the group has gone."""
        return int(_read(self.tasks_file) or 0)

    def processes(self) -> list[int]:
        """Their ids as this process sees them; none when the group has gone."""
        return [int(pid) for pid in _read(self.tasks_file.with_name("cgroup.procs")).split()]

    def kill(self, seconds: float) -> bool:
        """End every process of it; whether none is left after so long. Takes the right to signal them."""
        until = time.monotonic() + seconds
        while processes := self.processes():
            for pid in processes:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def killed_for_memory(self) -> int:
        """How many processes the kernel has killed because the group was over its limit."""
        for line in _read(self.memory_file).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
