"""The folder of one evaluation: what the sandbox sees, and what only the judge does."""

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import Code, InputError


class Workspace:
    """A temporary folder that is gone at the end, or moved to `keep`.

    Attributes:
        root: enterable by everyone, listable by the judge alone.
        inbox: read-only in the sandbox.
        outbox: the sandbox's to write.
        sockets: one listening socket of the judge for each rank.
        code: what the sandbox may import.
        private: the judge's alone; in no sandbox.
        reference: does not exist until the submission's sandbox is gone.
    """

    def __init__(self, keep: Path | None = None) -> None:
        """Raises InputError when `keep` exists already."""
        if keep is not None and keep.exists():
            raise InputError(Code.BAD_ARGUMENT, f"{keep} exists already: name a new folder to keep")
        self._keep = keep
        self.root = Path(tempfile.mkdtemp(prefix="trainjudge-"))
        self.root.chmod(0o711)
        self.inbox = self._folder("inbox", 0o755)
        self.outbox = self._folder("outbox", 0o755)
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
        if self._keep is None:
            shutil.rmtree(self.root, ignore_errors=True)
        else:
            # symlinks=True: whatever the sandbox left in the outbox is copied, never followed.
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.root, self._keep)
