"""What the escape probe found: the table of attempts and levels, and the gaps that are known.

`docs/security.md` shows the same table and says what each gap means; a test holds the two together.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import Field
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.records import Record
from harness.sandbox import Level

TITLES: Final[Mapping[str, str]] = {
    "outside": "reach an address beyond the sandbox",
    "services": "talk to a service of the machine",
    "rank_socket": "open the judge's socket of another rank",
    "neighbour_socket": "speak to the judge as another evaluation's rank",
    "reference": "read the judge's and the reference's files",
    "challenge": "read the challenge before GO, or the corpus",
    "neighbour_files": "read another evaluation's files",
    "judge_memory": "read the judge's memory, files, descriptors",
    "environment": "find a secret in an environment",
    "processes": "see the machine's processes",
    "write_outside": "write outside the outbox and /tmp",
    "change_inputs": "change the train file, the code, the model",
    "shared_folders": "leave a file for others",
    "remount": "mount, remount, chroot",
    "mknod": "make a device file",
    "devices": "open a device that was not given (GPUs included)",
    "ptrace": "trace a process of the judge or a neighbour",
    "signals": "kill a process of the judge or a neighbour",
    "setuid": "become root",
    "module": "load a kernel module",
    "kernel_settings": "open a switch of the kernel, read its log",
    "raise_limits": "raise a limit or the priority",
    "oom_score": "have others killed first when memory runs out",
    "fork": "fork past the limit",
    "memory": "allocate past the limit",
    "kernel_memory": "hold more of the kernel's memory than allowed",
    "outbox": "fill the disk through the outbox",
    "deleted_files": "fill it with open files that have no name",
    "mapped_files": "fill it with mapped files that have no name",
    "temporary_folder": "fill it through its own temporary folder",
    "machine_folders": "fill it through the machine's /tmp",
    "shared_memory": "fill shared memory",
    "outlive": "outlive the evaluation",
}

# For each level and attempt: how the ways begin that are known to be open; "" is every way. Level
# `none` has no gaps: it protects from nothing.
Gaps = Mapping[Level, Mapping[str, tuple[str, ...]]]
KNOWN_GAPS: Final[Gaps] = {
    Level.DOCKER: {"oom_score": ("",)},
    Level.BUBBLEWRAP: {"oom_score": ("",), "kernel_memory": ("",)},
    Level.USER: {
        "outside": ("",),
        "services": ("",),
        "processes": ("",),
        "shared_folders": ("visible in ", "left in a folder of everybody's"),
        "devices": ("",),
        "oom_score": ("",),
        "kernel_memory": ("",),
        "machine_folders": ("",),
        "shared_memory": ("/dev/shm is filled", "64 MiB in /dev/shm"),
    },
    Level.NONE: {},
}
# These come with a judge that may not look into what a process has mapped: an ordinary user, and root in
# a container that has neither capability.
GAPS_WITHOUT_SIGHT: Final[Gaps] = {
    level: {"mapped_files": ("",)} for level in (Level.DOCKER, Level.BUBBLEWRAP, Level.USER)
}
CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE = 21, 40


def known_gaps(level: Level) -> dict[str, tuple[str, ...]]:
    """The gaps of a level for this judge: for each attempt, how the ways begin that are open."""
    gaps = dict(KNOWN_GAPS[level])
    if not _sees_mappings():
        gaps |= GAPS_WITHOUT_SIGHT.get(level, {})
    return gaps


def _sees_mappings() -> bool:
    """/proc/PID/map_files takes one of two capabilities; see proc(5)."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff"))[7:], 16)
    return bool(effective & (1 << CAP_SYS_ADMIN | 1 << CAP_CHECKPOINT_RESTORE))


class Outcome(StrEnum):
    """What came of an attempt at a level."""

    HELD = "held"
    GAP = "gap"
    ESCAPED = "ESCAPED"
    NOT_TRIED = "not tried"


STYLES = {
    Outcome.HELD: "green",
    Outcome.GAP: "yellow",
    Outcome.ESCAPED: "bold red",
    Outcome.NOT_TRIED: "dim",
}


class Cell(Record):
    """One attempt at one level."""

    outcome: Outcome
    detail: str = Field(description="what happened, or why it was not tried")
    seen: bool = Field(description="from outside; false: by the word of the program inside")


class Row(Record):
    attempt: str
    title: str
    cells: dict[Level, Cell]


class ProbeReport(Record):
    """The table; a level that does not work here is in `missing`, with the reason."""

    levels: tuple[Level, ...] = Field(description="that work here, best first")
    missing: dict[Level, str]
    seconds: dict[Level, float] = Field(description="that its attempts took")
    rows: tuple[Row, ...]

    @property
    def holds(self) -> bool:
        """No level that is to protect the judge let through what is not a known gap of it."""
        return not any(
            cell.outcome is Outcome.ESCAPED
            for row in self.rows
            for level, cell in row.cells.items()
            if level is not Level.NONE
        )


def escaped(level: Level, attempt: str, ways: tuple[str, ...], seen: bool) -> Cell:
    """The cell of an attempt of which `ways` succeeded."""
    known = known_gaps(level).get(attempt, ())
    new = [way for way in ways if not way.startswith(known)]
    outcome = Outcome.ESCAPED if new else Outcome.GAP
    return Cell(outcome=outcome, detail="; ".join(new or ways), seen=seen)


def render(report: ProbeReport) -> RenderableType:
    """The table, and below it what is not `held`, with the reason."""
    table = Table("attempt", *map(str, report.levels), header_style="bold")
    for row in report.rows:
        cells = [row.cells[level] for level in report.levels]
        table.add_row(row.title, *(Text(_word(cell), STYLES[cell.outcome]) for cell in cells))
    lines = [Text("¹ by the word of the program inside; the others were seen from outside", "dim")]
    for level, reason in report.missing.items():
        lines.append(Text(f"{level} does not work here: {reason}", "yellow"))
    for level in report.levels:
        for row in report.rows:
            cell = row.cells[level]
            if cell.outcome is not Outcome.HELD and level is not Level.NONE:
                words = f"{level}: {row.title}: {cell.outcome}: {cell.detail}"
                lines.append(Text(words, STYLES[cell.outcome]))
    if set(report.levels) <= {Level.NONE}:
        verdict = Text("no level above none works here: nothing protects the judge", "yellow")
    elif report.holds:
        verdict = Text("every level above none holds, but for its known gaps (docs/security.md)")
    else:
        verdict = Text("A LEVEL LETS SOMETHING THROUGH: do not judge strangers' files", "bold red")
    return Group(table, *lines, verdict)


def _word(cell: Cell) -> str:
    said = cell.outcome is Outcome.HELD and not cell.seen
    return f"{cell.outcome} ¹" if said else str(cell.outcome)
