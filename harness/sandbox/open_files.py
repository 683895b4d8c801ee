"""What the processes of a sandbox hold open: memory files, and files that have no name any more.

A look is bounded, whatever they hold. There may be hundreds of processes with thousands of descriptors
and ten thousands of mappings each; a look that went through all of them would take minutes, in which no
limit is enforced and the judge is not heard.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from stat import S_ISREG

from harness.sandbox.process_tree import living_task, read_process

#: Of all processes together. Eight ranks of torch have some hundred each.
MOST_DESCRIPTORS = 65_536
LOOK_SECONDS = 0.5
#: Descriptors, or mappings, after which the judge is listened to again.
AT_ONCE = 512

#: A file, as the kernel tells it apart: device and inode.
_File = tuple[int, int]


class TooManyDescriptorsError(Exception):
    """The processes hold more than MOST_DESCRIPTORS open."""


class StopLookingError(Exception):
    """The judge wants the sandbox to end."""


@dataclass
class _Seen:
    """Of one process: how many descriptors, and the bytes of the files that count."""

    descriptors: int = 0
    memory: dict[_File, int] = field(default_factory=dict)
    nameless: dict[_File, int] = field(default_factory=dict)
    mapped: dict[_File, int] = field(default_factory=dict)


class OpenFiles:
    """Args:
    folder: on whose file system files without a name are counted; None: nowhere.
    stop: whether the judge wants the sandbox to end.
    """

    def __init__(self, folder: str | None, stop: Callable[[], bool]) -> None:
        self._device = -1
        if folder is not None:
            with contextlib.suppress(OSError):
                self._device = os.stat(folder).st_dev
        self._stop = stop
        self._seen: dict[int, _Seen] = {}

    def look(self, pids: Iterable[int], *, mapped: bool) -> None:
        """Look at these processes, for LOOK_SECONDS at most.

        Who could not be reached keeps what was seen last, and comes first the next time.

        Args:
            pids: all processes of the sandbox.
            mapped: look for mapped files too. That reads all mappings, milliseconds for a rank of torch.

        Raises:
            TooManyDescriptorsError: that is more than anybody needs.
            StopLookingError: in the middle of it.
        """
        alive = set(pids)
        # Those that were looked at longest ago come first: a dict keeps the order in which they were.
        waiting = [pid for pid in alive if pid not in self._seen]
        waiting += [pid for pid in self._seen if pid in alive]
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in alive}
        until = time.monotonic() + LOOK_SECONDS
        for pid in waiting:
            before = self._seen.pop(pid, _Seen())
            self._seen[pid] = self._look_at(pid, before, mapped=mapped)
            if sum(seen.descriptors for seen in self._seen.values()) > MOST_DESCRIPTORS:
                raise TooManyDescriptorsError(
                    f"more than {MOST_DESCRIPTORS} open files in all processes together"
                )
            if time.monotonic() > until:
                break

    @property
    def memory_bytes(self) -> int:
        """In memory files (memfd) that are held open: unmapped, no resident size has them."""
        return _total(seen.memory for seen in self._seen.values())

    @property
    def nameless_bytes(self) -> int:
        """In files without a name on the folder's file system.

        A program can write a file, unlink it and hold it open or mapped: no look at the folder shows it.
        What is on its way through a socket, and held by nobody, is not seen here either.
        """
        return _total(
            files for seen in self._seen.values() for files in (seen.nameless, seen.mapped)
        )

    def _look_at(self, pid: int, before: _Seen, *, mapped: bool) -> _Seen:
        seen = _Seen(mapped=before.mapped)
        process = read_process(pid)
        task = f"/proc/{pid}" if process is None else living_task(process)
        folder = f"{task}/fd"
        for name in self._listening(_names(folder)):
            seen.descriptors += 1
            if seen.descriptors > MOST_DESCRIPTORS:
                break
            path = f"{folder}/{name}"
            with contextlib.suppress(OSError):
                target = os.readlink(path)
                if target.startswith("/memfd:"):
                    status = os.stat(path)
                    seen.memory[status.st_dev, status.st_ino] = status.st_blocks * 512
                elif target.endswith(" (deleted)"):
                    self._add_nameless(path, seen.nameless)
        if mapped and self._device >= 0:
            seen.mapped = {}
            for path in self._listening(_mapped_files(pid, task, self._device)):
                self._add_nameless(path, seen.mapped)
        return seen

    def _add_nameless(self, path: str, files: dict[_File, int]) -> None:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if status.st_nlink == 0 and status.st_dev == self._device and S_ISREG(status.st_mode):
                size = max(status.st_blocks * 512, status.st_size)
                files[status.st_dev, status.st_ino] = size

    def _listening(self, found: Iterator[str]) -> Iterator[str]:
        """The same, with an ear for the judge."""
        while portion := list(islice(found, AT_ONCE)):
            if self._stop():
                raise StopLookingError
            # A line of mappings that is of no interest is an empty word.
            yield from filter(None, portion)


def _total(files: Iterable[dict[_File, int]]) -> int:
    """Bytes; what several processes hold counts once."""
    every: dict[_File, int] = {}
    for each in files:
        every |= each
    return sum(every.values())


def _names(folder: str) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def _mapped_files(pid: int, task: str, device: int) -> Iterator[str]:
    """Paths below /proc of a process's mapped files without a name; an empty one for any other mapping.

    Only a judge with the right to look there sees them. Format of a line (proc(5)): `address perms offset
    major:minor inode path`.
    """
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}".encode()
    with contextlib.suppress(OSError), open(f"{task}/maps", "rb") as lines:
        for line in lines:
            if line.endswith(b" (deleted)\n") and line.split(maxsplit=4)[3] == wanted:
                first, _, last = line.split(maxsplit=1)[0].decode().partition("-")
                yield f"/proc/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}"
            else:
                yield ""
