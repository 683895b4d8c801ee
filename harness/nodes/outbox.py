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

_FOLDER: Final = re.compile(r"run(0|[1-9][0-9]{0,2})-rank(0|[1-9][0-9]{0,4})", re.ASCII)
_FILE: Final = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors", re.ASCII)


def sent(
    outbox: Path, ranks: range, most_files: int, most_bytes: int
) -> Iterator[Folder | Piece | Odd]:
    """Every rank's folder and its files, in portions; ends with the first thing that has no place there.

    Args:
        outbox: of a sandbox that has ended.
        ranks: those that were in it.
        most_files: in a rank's folder.
        most_bytes: of all files.
    """
    descriptor = os.open(outbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as listing:
            for entry in listing:
                folder = _folder(entry, ranks)
                if folder is None:
                    yield Odd(f"{quoted(entry.name)} lies in the outbox")
                    return
                yield folder
                for word in _files(descriptor, entry.name, folder, most_files):
                    most_bytes -= len(word.data) if isinstance(word, Piece) else 0
                    if most_bytes < 0:
                        word = Odd("more than the limit lies in the outbox")
                    yield word
                    if isinstance(word, Odd):
                        return
    finally:
        os.close(descriptor)


def _folder(entry: "os.DirEntry[str]", ranks: range) -> Folder | None:
    found = _FOLDER.fullmatch(entry.name)
    if found is None or not entry.is_dir(follow_symlinks=False) or int(found[2]) not in ranks:
        return None
    return Folder(int(found[1]), int(found[2]))


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
    """An empty file is one portion without bytes."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        yield Odd(f"{quoted(name)} cannot be read: {error.strerror}")
        return
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            yield Odd(f"{quoted(name)} in the outbox is no file")
            return
        data = opened.read(PORTION)
        yield Piece(of.run, of.rank, name, data)
        while len(data) == PORTION:
            data = opened.read(PORTION)
            yield Piece(of.run, of.rank, name, data)


class Receiving:
    """Writes what one machine sends into the judge's own outbox.

    Args:
        outbox: the judge's.
        ranks: those that were on that machine.
        most_bytes: of all its files.
    """

    def __init__(self, outbox: Path, ranks: range, most_bytes: int) -> None:
        self._outbox = outbox
        self._ranks = ranks
        self._left = most_bytes

    def take(self, word: Folder | Piece | Odd) -> None:
        """Raises SubmissionError(OUTBOX_INVALID): it is odd, too much, or another machine's."""
        if isinstance(word, Odd):
            raise _invalid(word.what)
        folder = opened_folder(self._outbox, word.run, word.rank)
        if word.rank not in self._ranks:
            raise _invalid(f"{folder.name} lies in the outbox of a machine on which it was not")
        if isinstance(word, Folder):
            try:
                folder.mkdir()
            except FileExistsError:
                raise _invalid(f"{folder.name} lies in the outbox twice") from None
            return
        self._left -= len(word.data)
        if self._left < 0:
            raise _invalid("more than the limit lies in the outbox")
        with (folder / word.name).open("ab") as file:
            file.write(word.data)


def _invalid(what: str) -> SubmissionError:
    return SubmissionError(
        Code.OUTBOX_INVALID, f"{what}: it is written by the environment; leave it alone"
    )
