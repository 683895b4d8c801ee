"""The outbox of one machine, sent to the judge: read as an enemy has left it, and written by name.

What the files hold is nobody's business here: the judge reads them as it reads those of its own sandbox.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.errors import Code, SubmissionError
from harness.nodes.words import PORTION, Folder, Odd, Piece
from harness.protocol.text import quoted
from harness.timed.run import opened_folder

_FOLDER: Final = re.compile(r"run(\d{1,3})-rank(\d{1,5})")
_FILE: Final = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")


def sent(outbox: Path, most_files: int) -> Iterator[Folder | Piece | Odd]:
    """Every rank's folder and its files, in portions; ends with the first thing that has no place there.

    Args:
        outbox: of a sandbox that has ended.
        most_files: in a rank's folder.
    """
    descriptor = os.open(outbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as listing:
            for entry in listing:
                found = _FOLDER.fullmatch(entry.name)
                if found is None or not entry.is_dir(follow_symlinks=False):
                    yield Odd(f"{quoted(entry.name)} lies in the outbox")
                    return
                folder = Folder(int(found[1]), int(found[2]))
                yield folder
                for word in _files(descriptor, entry.name, folder, most_files):
                    yield word
                    if isinstance(word, Odd):
                        return
    finally:
        os.close(descriptor)


def _files(outbox: int, name: str, folder: Folder, most: int) -> Iterator[Piece | Odd]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=outbox)
    except OSError as error:
        yield Odd(f"{quoted(name)} cannot be read: {error.strerror}")
        return
    try:
        with os.scandir(descriptor) as listing:
            for number, entry in enumerate(listing):
                if number >= most or not _FILE.fullmatch(entry.name):
                    yield Odd(f"{quoted(entry.name)} lies in the outbox's {name}")
                    return
                yield from _portions(descriptor, entry.name, folder)
    finally:
        os.close(descriptor)


def _portions(folder: int, name: str, of: Folder) -> Iterator[Piece | Odd]:
    try:
        file = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError as error:
        yield Odd(f"{quoted(name)} cannot be read: {error.strerror}")
        return
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            yield Odd(f"{quoted(name)} in the outbox is no file")
            return
        left = status.st_size
        while True:
            data = opened.read(min(PORTION, left))
            left -= len(data)
            yield Piece(of.run, of.rank, name, status.st_size, data)
            if not data or not left:
                return


class Receiving:
    """Writes what one machine sends into the judge's own outbox.

    Args:
        outbox: the judge's.
        ranks: those that were on that machine.
        most_bytes: of all its files.
        most_files: in a rank's folder.
    """

    def __init__(
        self, outbox: Path, ranks: frozenset[int], most_bytes: int, most_files: int
    ) -> None:
        self._outbox = outbox
        self._ranks = ranks
        self._left = most_bytes
        self._most_files = most_files
        self._files: dict[Path, int] = {}

    def take(self, word: Folder | Piece | Odd) -> None:
        """Raises SubmissionError(OUTBOX_INVALID): it is odd, too much, or another rank's."""
        if isinstance(word, Odd):
            raise _invalid(word.what)
        folder = opened_folder(self._outbox, word.run, word.rank)
        if word.rank not in self._ranks:
            raise _invalid(f"{folder.name} lies in the outbox of a machine on which it was not")
        if isinstance(word, Folder):
            folder.mkdir()
            return
        self._left -= len(word.data)
        path = folder / word.name
        self._files.setdefault(path, 0)
        if self._left < 0 or len(self._files) > self._most_files * len(self._ranks) * 1_000:
            raise _invalid("there is more in the outbox than the limit")
        with path.open("ab") as file:
            file.write(word.data)


def _invalid(what: str) -> SubmissionError:
    return SubmissionError(
        Code.OUTBOX_INVALID, f"{what}: it is written by the environment; leave it alone"
    )
