"""The folder of one evaluation: what the sandbox sees, and what only the judge does."""

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import Code, InputError, JudgeError
from harness.sandbox.judge_process import judge_lives, this_process
from harness.sandbox.removal import remove_tree

PREFIX = "trainjudge-"
# In `private`: the judge whose folder it is.
JUDGE = "judge"
MARK_CHARACTERS = 200


def check_room(needed: int) -> None:
    """That `needed` bytes fit where workspaces lie, or runs would fail for no fault of a submission.

    Raises InputError: BAD_ARGUMENT.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{folder} has {free / 2**30:.1f} GiB free, and an evaluation may need "
            f"{needed / 2**30:.1f}: set TMPDIR to a larger disk, or limits.outbox_bytes lower",
        )


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
            check_free(keep)
        self._keep = keep
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self._make_folders()
        except BaseException:  # a signal that asks the judge to end among them
            remove_tree(self.root)
            raise

    def _make_folders(self) -> None:
        self.root.chmod(0o711)
        self.inbox = self._folder("inbox", 0o755)
        self.outbox = self._folder("outbox", 0o700)
        self.sockets = self._folder("sockets", 0o755)
        self.private = self._folder("private", 0o700)
        (self.private / JUDGE).write_text(this_process())
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


def left_folders() -> list[Path]:
    """Work folders below TMPDIR whose judge, of this user, was killed; what a sandbox wrote is in them."""
    found = []
    for root in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        try:
            status = root.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            judge = _judge_of(root)
        except (OSError, UnicodeDecodeError):
            continue
        if judge_lives(judge) is False:
            found.append(root)
    return found


def _judge_of(root: Path) -> str:
    """What its judge wrote of itself; something else may have been put in its place."""
    descriptor = os.open(
        root / "private" / JUDGE, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    )
    with os.fdopen(descriptor, encoding="ascii") as file:
        return file.read(MARK_CHARACTERS) if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""


def check_free(keep: Path) -> None:
    """That an evaluation can be kept there. Raises InputError(BAD_ARGUMENT)."""
    if os.path.lexists(keep):
        raise InputError(Code.BAD_ARGUMENT, f"{keep} exists already: name a new folder to keep")
    try:
        keep.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"cannot make the folder {keep.parent}: {error.strerror}"
        ) from None


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
