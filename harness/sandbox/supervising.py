"""What the two supervisors share: the order and the report, the pace of looking, and limits in words."""

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, NoReturn

from harness.sandbox.job import EndReason
from harness.sandbox.open_files import OpenFiles, StopLookingError, TooManyDescriptorsError
from harness.sandbox.watch import TooManyEntriesError, folder_bytes

POLL_SECONDS: Final = 0.1
LONGEST_POLL_SECONDS: Final = 1.0
# Measuring may take this share of one core, so that it does not slow the ranks down.
POLL_SHARE: Final = 0.02
# Looking for mapped files reads every mapping of every process: not each time.
MAPS_SECONDS: Final = 1.0
KILL_SECONDS: Final = 120.0
# Above the ranks, where that is allowed: who is to enforce limits must not wait for whom it limits.
NICENESS: Final = -10

#: Reason, exit status, and a sentence.
End = tuple[EndReason, int | None, str]
FAILED: Final = "failed"
LEFT: Final = "left"


@dataclass(frozen=True)
class Report:
    """The ending as it goes to the judge.

    Attributes:
        reason: an EndReason, FAILED when the supervisor itself did, or LEFT: of the sandbox something
            is left that is no process of ours.
        left: processes that could not be ended.
    """

    reason: str
    exit_status: int | None
    detail: str
    left: list[int]


def send(report: Report) -> NoReturn:
    """Tell the judge, and end."""
    with contextlib.suppress(OSError):  # the judge may be gone
        os.write(1, json.dumps(asdict(report)).encode())
    os._exit(0)


def first_line() -> dict[str, Any]:
    """The plan, from standard input."""
    data = b""
    while not data.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            os._exit(1)  # the judge died before it had given an order
        data += part
    plan: dict[str, Any] = json.loads(data)
    return plan


def go_above_the_ranks() -> None:
    """In priority; only once they are started, since they would inherit it."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def look_once(over_limit: Callable[[], "End | None"]) -> tuple["End | None", float]:
    """The limit that one look finds passed, and the seconds until the next look.

    A look that stops because the judge has said a word finds nothing: the word is read next.
    """
    began = time.monotonic()
    found = None
    with contextlib.suppress(StopLookingError):
        found = over_limit()
    cost = time.monotonic() - began
    return found, min(max(POLL_SECONDS, cost / POLL_SHARE), LONGEST_POLL_SECONDS)


class Look:
    """What the processes hold open, looked at again and again.

    Args:
        outbox: its file system is where files without a name are counted.
    """

    def __init__(self, outbox: str | None) -> None:
        self._next_maps = 0.0
        self.files = OpenFiles(outbox, stop_was_said)

    def over(self, pids: Iterable[int]) -> End | None:
        """Look; the end of a sandbox that holds too many files open. Raises StopLookingError."""
        mapped = time.monotonic() >= self._next_maps
        if mapped:
            self._next_maps = time.monotonic() + MAPS_SECONDS
        try:
            self.files.look(pids, mapped=mapped)
        except TooManyDescriptorsError as error:
            return EndReason.PROCESSES, None, str(error)
        return None


def stop_was_said() -> bool:
    """Whether the judge has closed the lifeline, or said a word."""
    return bool(select.select([0], [], [], 0)[0])


def over_size(name: str, folder: str | None, allowed: int, nameless: int = 0) -> End | None:
    """The end of a sandbox whose `folder` holds more than `allowed` bytes, or None.

    Args:
        nameless: bytes on its file system in files without a name.
    """
    if folder is None:
        return None
    try:
        size = folder_bytes(folder) + nameless
    except TooManyEntriesError as error:
        return EndReason.OUTBOX, None, f"{name} has {error}"
    if size > allowed:
        return EndReason.OUTBOX, None, f"{mib(size)} in {name} where {mib(allowed)} are allowed"
    return None


def too_many_tasks(tasks: int, allowed: int) -> End:
    """The end of a sandbox with more processes and threads than it may have."""
    detail = f"{tasks} processes and threads where {allowed} are allowed"
    return EndReason.PROCESSES, None, detail


def out_of_memory(allowed: int) -> End:
    """The end of a sandbox in which the kernel ended something for memory; `allowed` is in bytes."""
    return EndReason.MEMORY, None, f"memory ran out where {mib(allowed)} are allowed"


def mib(size: int) -> str:
    """For a person."""
    return f"{size / 2**20:.1f} MiB"
