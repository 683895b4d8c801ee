"""What a sandbox writes: the bytes in a folder, and its log. Both are limited, neither is trusted."""

import os
import struct
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
