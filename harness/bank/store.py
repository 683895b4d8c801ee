"""The folder of a bank: unused entries, and those that an evaluation has taken.

It is the judge's alone. An entry is taken by one rename under a lock, so no two evaluations have the same;
one that was taken never comes back, whatever becomes of the evaluation.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from harness.errors import Code, InputError
from harness.paths import data_folder
from harness.records import Record
from harness.reference.outcome import RunFolders
from harness.sandbox.judge_process import judge_lives, this_process

ENTRY: Final = "entry.json"
#: In an entry that was taken: the judge that did it.
TAKER: Final = "judge"


class Entry(Record):
    """One challenge with its reference."""

    id: str
    kind: str = Field(description="of what shapes challenge and reference: who may take it")
    benchmark: str = Field(description="its name")
    seed: str = Field(description="the challenge follows from it")
    steps: int
    world_size: int = Field(description="of the reference")
    made_at: str
    seconds: float = Field(description="that its training took")
    size_bytes: int = 0


class Bank:
    """Entries on disk, of all benchmarks. Made when the first is added."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or data_folder() / "bank"
        self._unused, self._taken = self._root / "unused", self._root / "taken"

    def entries(self, kind: str | None = None) -> list[Entry]:
        """The unused ones, of one kind or all, the oldest first. What is no entry is passed over."""
        found = []
        for folder in self._unused.iterdir() if self._unused.is_dir() else ():
            try:
                entry = Entry.model_validate_json((folder / ENTRY).read_bytes())
            except (OSError, ValidationError):
                continue
            if entry.id == folder.name and kind in (None, entry.kind):
                found.append(entry)
        return sorted(found, key=lambda entry: (entry.made_at, entry.id))

    @property
    def size_bytes(self) -> int:
        """Of the unused entries."""
        return sum(entry.size_bytes for entry in self.entries())

    def add(self, entry: Entry, made: RunFolders) -> Entry:
        """Copy a reference into the bank: whole, or not at all. Its size is found out here.

        Raises OSError: the disk is full.
        """
        with self._locked():
            making = self._root / "making"
            shutil.rmtree(making, ignore_errors=True)
            try:
                place = RunFolders.of_entry(making)
                shutil.copytree(made.asked, place.asked)
                shutil.copytree(made.made, place.made)
                files = [file for file in making.rglob("*") if file.is_file()]
                entry = entry.model_copy(
                    update={"size_bytes": sum(f.stat().st_size for f in files)}
                )
                (making / ENTRY).write_text(entry.model_dump_json(), encoding="utf-8")
                making.rename(self._unused / entry.id)
                return entry
            finally:
                shutil.rmtree(making, ignore_errors=True)

    def take(self, kind: str) -> tuple[Entry, Path] | None:
        """Spend a random entry of a kind, if there is one; its folder is the caller's, to be removed."""
        if not self._unused.is_dir():
            return None
        with self._locked():
            self._forget_the_dead()
            entries = self.entries(kind)
            if not entries:
                return None
            entry = secrets.choice(entries)
            folder = self._unused / entry.id
            (folder / TAKER).write_text(this_process(), encoding="ascii")
            return entry, folder.rename(self._taken / entry.id)

    def drop(self, ids: Sequence[str]) -> list[Entry]:
        """Remove unused entries; gives those that were there.

        Raises InputError(BAD_ARGUMENT): one of them is not.
        """
        with self._locked():
            known = {entry.id: entry for entry in self.entries()}
            if unknown := [each for each in ids if each not in known]:
                raise InputError(Code.BAD_ARGUMENT, f"the bank has no entry {', '.join(unknown)}")
            self._forget_the_dead()
            for each in ids:
                shutil.rmtree(self._unused / each)
            return [known[each] for each in ids]

    def _forget_the_dead(self) -> None:
        """What judges have taken that were killed since."""
        for folder in self._taken.iterdir():
            try:
                taker = (folder / TAKER).read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError):
                continue
            if judge_lives(taker) is False:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        for folder in (self._root, self._unused, self._taken):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
