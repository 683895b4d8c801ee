"""The folder of one evaluation: what the sandbox sees, and what only the judge does."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import Code, InputError, JudgeError

# Longer than any name that the judge gives, so that no folder of `root` is in the way.
_MOVED = "moved-up-by-the-judge-"


class Workspace:
    """A temporary folder that is gone at the end, or moved to `keep`.

    Attributes:
        root: enterable by everyone, listable by the judge alone.
        inbox: read-only in the sandbox.
        outbox: the sandbox's to write, and closed to all other users.
        sockets: one listening socket of the judge for each rank.
        code: what the sandbox may import.
        private: the judge's alone; in no sandbox.
        reference: does not exist until the submission's sandbox is gone.
    """

    def __init__(self, keep: Path | None = None) -> None:
        """Raises InputError when `keep` exists already, or its parent cannot be made."""
        if keep is not None:
            _check_free(keep)
        self._keep = keep
        self.root = Path(tempfile.mkdtemp(prefix="trainjudge-"))
        self.root.chmod(0o711)
        self.inbox = self._folder("inbox", 0o755)
        self.outbox = self._folder("outbox", 0o700)
        self.sockets = self._folder("sockets", 0o755)
        self.private = self._folder("private", 0o700)
        self.code = self.root / "code"
        self.reference = self.root / "reference"

    def _folder(self, name: str, mode: int) -> Path:
        folder = self.root / name
        folder.mkdir()
        folder.chmod(mode)
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises JudgeError when the folder cannot be kept; never in place of another error."""
        try:
            if self._keep is not None:
                _move(self.root, self._keep)
        except (OSError, RecursionError) as problem:  # shutil.Error is an OSError
            if error is None:
                raise JudgeError(
                    Code.INTERNAL, f"cannot keep the evaluation in {self._keep}", str(problem)
                ) from None
        finally:
            remove_tree(self.root)


def _check_free(keep: Path) -> None:
    if os.path.lexists(keep):
        raise InputError(Code.BAD_ARGUMENT, f"{keep} exists already: name a new folder to keep")
    try:
        keep.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"cannot make the folder {keep.parent}: {error.strerror}"
        ) from None


def remove_tree(root: Path) -> None:
    """Remove a folder that a submission has written to; call it when nothing of the sandbox runs.

    A program can nest folders deeper than Python recurses (`shutil.rmtree`) or a path is long, and
    take all permissions from those of its own user. So every folder below is first moved up into
    `root`. No link is followed. What cannot be removed stays.
    """
    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    moved = 0
    try:
        waiting = _empty(top)
        while waiting:
            name = waiting.pop()
            with contextlib.suppress(OSError):
                os.chmod(name, 0o700, dir_fd=top)
                folder = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top
                )
                try:
                    for below in _empty(folder):
                        with contextlib.suppress(OSError):
                            # Another parent means another "..": that takes the right to write.
                            os.chmod(below, 0o700, dir_fd=folder)
                            moved += 1
                            upper = f"{_MOVED}{moved}"
                            os.rename(below, upper, src_dir_fd=folder, dst_dir_fd=top)
                            waiting.append(upper)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        root.rmdir()


def _empty(folder: int) -> list[str]:
    """Remove everything but folders, and name those."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
                continue
            with contextlib.suppress(OSError):
                os.unlink(entry.name, dir_fd=folder)
    return folders


def _move(root: Path, keep: Path) -> None:
    """Rename, or copy to another file system what is a file, a folder or a link; links are not followed."""
    try:
        root.rename(keep)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # copyfile leaves the modes behind: a copy is the judge's own, and must not be setuid.
        shutil.copytree(root, keep, symlinks=True, ignore=_special, copy_function=shutil.copyfile)


def _special(folder: str, names: list[str]) -> list[str]:
    """Sockets, FIFOs and devices: copying one fails, or waits for somebody to write into it."""
    kinds = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    return [name for name in names if stat.S_IFMT(Path(folder, name).lstat().st_mode) not in kinds]
