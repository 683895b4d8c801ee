"""The folder of a bank: unused entries, those that an evaluation has taken, and those that are being made.

It is the judge's alone. An entry is taken by one rename under a lock, so no two evaluations have the same;
one that was taken never comes back, whatever becomes of the evaluation. Whoever has taken or is making one
holds a lock of its folder, which the kernel gives back if that process dies.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3
from pydantic import Field, ValidationError

from harness.errors import Code, InputError, JudgeError
from harness.files import PRIVATE_FOLDER, make_private_folder
from harness.paths import data_folder
from harness.records import Record
from harness.reference.outcome import RunFolders

ENTRY: Final = "entry.json"
LOCK: Final = "lock"


class Entry(Record):
    """One challenge with its reference."""

    id: str
    kind: str = Field(description="of what shapes challenge and reference: who may take it")
    program: str = Field(description="of the code that made it: no other takes it")
    benchmark: str = Field(description="its name")
    seed: str = Field(description="the challenge follows from it")
    tokens_sha256: str = Field(description="of the challenge that did")
    steps: int
    world_size: int = Field(description="of the reference")
    made_at: str
    seconds: float = Field(description="that its training took")
    digests: dict[str, str] = Field(default_factory=dict, description="BLAKE3 of every file")
    size_bytes: int = 0


@dataclass(frozen=True)
class Taken:
    """An entry that is this process's; `remove` it in the end."""

    entry: Entry
    folder: Path
    lock: int

    @property
    def reference(self) -> RunFolders:
        return RunFolders.of_entry(self.folder)

    def check(self) -> None:
        """Raises JudgeError: a file is not what was put there; it must not be held against anybody."""
        for name, digest in self.entry.digests.items():
            if _digest(self.folder / name) != digest:
                raise JudgeError(
                    Code.INTERNAL,
                    f"an entry of the bank is damaged ({self.entry.id}: {name}); is the disk failing?",
                )

    def moved(self, place: Path) -> RunFolders:
        """Its files, which lie elsewhere from now on, on whatever disk. Raises OSError: no room."""
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.folder, place)
        return RunFolders.of_entry(place)

    def remove(self) -> None:
        """Away with it, where it still lies in the bank."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


class Bank:
    """Entries on disk, of all benchmarks. Made when the first is added."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or data_folder() / "bank"
        self._unused, self._taken, self._making = (
            self._root / name for name in ("unused", "taken", "making")
        )

    def entries(self, kind: str | None = None) -> list[Entry]:
        """The unused ones, of one kind or all, the oldest first. What is no entry is passed over."""
        return [entry for entry in _entries(self._unused) if kind in (None, entry.kind)]

    @property
    def size_bytes(self) -> int:
        """Of all that is there, unused or not."""
        every = (*_entries(self._unused), *_entries(self._taken))
        return sum(entry.size_bytes for entry in every)

    def add(self, entry: Entry, made: RunFolders) -> Entry:
        """Copy a reference into the bank: whole, or not at all. Size and digests are found out here.

        Raises JudgeError: the disk is full, or fails.
        """
        try:
            with self._locked():
                self._tidy()
                making = self._making / entry.id
                making.mkdir(mode=PRIVATE_FOLDER)
                lock = _lock(making)
            try:
                place = RunFolders.of_entry(making)
                shutil.copytree(made.asked, place.asked)
                shutil.copytree(made.made, place.made)
                entry = _described(entry, making)
                _write(making / ENTRY, entry.model_dump_json())
                with self._locked():
                    making.rename(self._unused / entry.id)
                    _sync(self._unused)
            finally:
                shutil.rmtree(making, ignore_errors=True)
                os.close(lock)
        except OSError as error:
            raise JudgeError(
                Code.INTERNAL, f"nothing can be put into the bank ({error.strerror}): {self._root}"
            ) from None
        return entry

    def take(self, kind: str) -> Taken | None:
        """Spend a random entry of a kind, if there is one. Raises OSError: the bank cannot be used."""
        if not self._unused.is_dir():
            return None
        with self._locked():
            entries = self.entries(kind)
            if not entries:
                return None
            entry = secrets.choice(entries)
            folder = self._unused / entry.id
            lock = _lock(folder)
            return Taken(entry, folder.rename(self._taken / entry.id), lock)

    def drop(self, ids: Sequence[str]) -> list[Entry]:
        """Remove unused entries, and what was left half made; gives those that were there.

        Raises InputError(BAD_ARGUMENT): one of them is not.
        """
        if not self._root.is_dir() and not ids:
            return []
        with self._locked():
            self._tidy()
            known = {entry.id: entry for entry in self.entries()}
            if unknown := [each for each in ids if each not in known]:
                raise InputError(Code.BAD_ARGUMENT, f"the bank has no entry {', '.join(unknown)}")
            dropped = [known[each] for each in dict.fromkeys(ids)]
            for entry in dropped:
                shutil.rmtree(self._unused / entry.id)
            return dropped

    def _tidy(self) -> None:
        """Away with what nobody will come for: whoever had it is gone, and its lock with it."""
        for folder in (*self._taken.iterdir(), *self._making.iterdir()):
            try:
                os.close(_lock(folder))
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_folder(self._root)
        self._root.chmod(PRIVATE_FOLDER)
        for folder in (self._unused, self._taken, self._making):
            make_private_folder(folder)
        lock = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _entries(parent: Path) -> list[Entry]:
    found = []
    for folder in parent.iterdir() if parent.is_dir() else ():
        try:
            entry = Entry.model_validate_json((folder / ENTRY).read_bytes())
        except (OSError, ValidationError):
            continue
        if entry.id == folder.name:
            found.append(entry)
    return sorted(found, key=lambda entry: (entry.made_at, entry.id))


def _lock(folder: Path) -> int:
    """Raises BlockingIOError: somebody has it."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _described(entry: Entry, folder: Path) -> Entry:
    """With what there is on the disk, for good."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK]
    for path in files:
        _sync(path)
    return entry.model_copy(
        update={
            "digests": {str(path.relative_to(folder)): _digest(path) for path in files},
            "size_bytes": sum(path.stat().st_size for path in files),
        }
    )


def _digest(file: Path) -> str:
    return str(blake3(max_threads=blake3.AUTO).update_mmap(file).hexdigest())


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    _sync(file)


def _sync(path: Path) -> None:
    """What was written there survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
