"""What a sandbox writes: the bytes in a folder, and its log. Both are limited, neither is trusted."""

import contextlib
import os
import struct
from collections.abc import Iterable
from stat import S_ISREG
from typing import Self

from harness.protocol.text import printable

MAX_DEPTH = 16
MAX_ENTRIES = 100_000
COUNTER = struct.Struct("<Q")


class TooManyEntriesError(Exception):
    """The folder is too deep, has too many entries, or is closed: it cannot be measured."""


def folder_bytes(folder: str) -> int:
    """Bytes that `folder` holds: for each entry the larger of its disk blocks and its apparent size.

    A sparse file counts by its apparent size, because whoever reads it reads that much. No link is
    followed, also none that takes a folder's place while this runs.

    Raises TooManyEntriesError, also for a folder that is closed to the judge: what it hides may be
    any amount.
    """
    counted = [0]
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise TooManyEntriesError("a folder that cannot be read") from None
    except OSError:
        return 0
    return _folder_bytes(root, 0, counted)


def _folder_bytes(folder: int, depth: int, counted: list[int]) -> int:
    """Takes over the descriptor `folder` and closes it."""
    total = 0
    try:
        if depth > MAX_DEPTH:
            raise TooManyEntriesError(f"folders nested deeper than {MAX_DEPTH}")
        with os.scandir(folder) as entries:
            for entry in entries:
                counted[0] += 1
                if counted[0] > MAX_ENTRIES:
                    raise TooManyEntriesError(f"more than {MAX_ENTRIES} files")
                try:
                    status = entry.stat(follow_symlinks=False)
                    total += max(status.st_blocks * 512, status.st_size)
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    below = os.open(
                        entry.name,
                        os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                        dir_fd=folder,
                    )
                except PermissionError:
                    raise TooManyEntriesError("a folder that cannot be read") from None
                except OSError:
                    continue  # it has gone meanwhile
                total += _folder_bytes(below, depth + 1, counted)
    finally:
        os.close(folder)
    return total


def nameless_bytes(pids: Iterable[int], folder: str, *, mapped: bool) -> int:
    """Bytes that processes keep on the file system of `folder` in files without a name there.

    A program can write a file, unlink it and hold it open or mapped: no look at the folder shows it. What
    is on its way through a socket, and held by nobody, is not seen here either.

    Args:
        pids: the processes.
        mapped: look for mapped files too. That reads all mappings, some milliseconds for a rank of torch.
    """
    try:
        device = os.stat(folder).st_dev
    except OSError:
        return 0
    sizes: dict[int, int] = {}
    for pid in pids:
        for path in (*_open_files(pid), *(_mapped_files(pid, device) if mapped else ())):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if status.st_nlink == 0 and status.st_dev == device and S_ISREG(status.st_mode):
                    sizes[status.st_ino] = max(status.st_blocks * 512, status.st_size)
    return sum(sizes.values())


def _open_files(pid: int) -> list[str]:
    """Paths below /proc of a process's open files that have no name any more."""
    folder = f"/proc/{pid}/fd"
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}").endswith(" (deleted)"):
                    found.append(f"{folder}/{name}")
    return found


def _mapped_files(pid: int, device: int) -> list[str]:
    """The same of its mapped files; only a judge with the right to look there sees them.

    Format of a line (proc(5)): `address perms offset major:minor inode path`.
    """
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}".encode()
    found = []
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as lines:
        for line in lines:
            if line.endswith(b" (deleted)\n") and line.split(maxsplit=4)[3] == wanted:
                first, _, last = line.split(maxsplit=1)[0].decode().partition("-")
                found.append(f"/proc/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}")
    return found


class Log:
    """The first and the last bytes of an endless stream, in a memory file that two processes share.

    Layout: an 8-byte count of all bytes ever written, then `half` bytes that stay, then a ring of
    `half` bytes.

    Args:
        file: descriptor of the memory file; this object does not close it.
        limit: bytes kept.
    """

    def __init__(self, file: int, limit: int) -> None:
        self._file = file
        self._half = max(1, limit // 2)
        self._written = 0

    @classmethod
    def create(cls, limit: int) -> Self:
        return cls(os.memfd_create("trainjudge-log"), limit)

    @property
    def file(self) -> int:
        return self._file

    def append(self, data: bytes) -> None:
        """Keep what fits; never fails for want of space, never grows beyond the limit."""
        room = self._half - self._written
        if room > 0:
            os.pwrite(self._file, data[:room], COUNTER.size + self._written)
            self._written += len(data[:room])
            data = data[room:]
        if len(data) > self._half:
            self._written += len(data) - self._half
            data = data[-self._half :]
        while data:
            place = (self._written - self._half) % self._half
            part = data[: self._half - place]
            os.pwrite(self._file, part, COUNTER.size + self._half + place)
            self._written += len(part)
            data = data[len(part) :]
        os.pwrite(self._file, COUNTER.pack(self._written), 0)

    def read(self) -> str:
        """What was kept, as text that is safe to print: no control character but newline and tab."""
        header = os.pread(self._file, COUNTER.size, 0)
        written = COUNTER.unpack(header)[0] if len(header) == COUNTER.size else 0
        head = os.pread(self._file, min(written, self._half), COUNTER.size)
        beyond = written - self._half
        if beyond <= 0:
            return printable(head)
        ring = os.pread(self._file, min(beyond, self._half), COUNTER.size + self._half)
        if beyond <= self._half:
            return printable(head + ring)
        start = beyond % self._half
        tail = ring[start:] + ring[:start]
        cut = f"\n[... {beyond - self._half} bytes cut ...]\n"
        return printable(head) + cut + printable(tail)
