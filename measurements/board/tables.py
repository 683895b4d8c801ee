"""Rows of Markdown tables, and what a process has used."""

import time
from pathlib import Path
from typing import Final

PAGE_GOAL: Final = "50 ms"
RANK_GOAL: Final = "5 s"
MEMORY_GOAL: Final = "500 MB"


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells: str) -> None:
    row(*cells)
    print("|" + "---|" * len(cells), flush=True)


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process since it started, as its CPU clock has it (clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_mb(pid: int) -> float:
    """The most that it ever had in memory."""
    return _status_mb(pid, "VmHWM")


def resident_mb(pid: int) -> float:
    """What it has in memory now."""
    return _status_mb(pid, "VmRSS")


def _status_mb(pid: int, name: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6
