"""While nothing waits, a worker has challenges trained on ahead: `validator bank fill` as a child process.

The child makes one entry after the other and holds the machine meanwhile, so it is ended as soon as
something waits; what it had half made is lost.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Final

from harness.bank.store import Bank
from harness.board.judge_process import end_child, end_with_parent
from harness.phases import OnProgress
from harness.protocol.text import one_line, printable

FILL: Final = (sys.executable, "-m", "harness.cli", "bank", "fill", "--idle")
END_SECONDS: Final = 30.0
#: After a child that failed: whatever is wrong with this machine is seldom mended sooner.
AGAIN_SECONDS: Final = 600.0
LAST_BYTES: Final = 4096


@dataclass(frozen=True)
class Wanted:
    """What a worker keeps ready.

    Attributes:
        kind: of entries, from `bank.kind.kind_of`.
        count: unused ones.
        options: of `validator bank fill`, the count apart.
        command: `validator bank fill`.
    """

    bank: Bank
    kind: str
    count: int
    options: tuple[str, ...]
    command: tuple[str, ...] = FILL

    @property
    def missing(self) -> bool:
        return len(self.bank.entries(self.kind)) < self.count


class Filler:
    """Starts the child where entries are missing, and ends it where the machine is needed."""

    def __init__(self, wanted: Wanted | None, progress: OnProgress) -> None:
        self._wanted, self._progress = wanted, progress
        self._child: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._starts_from = 0.0

    @property
    def running(self) -> bool:
        """Whether a child is at it; one that has ended is heard first."""
        if self._child is not None and self._child.poll() is not None:
            self._heard(self._child.returncode)
        return self._child is not None

    def look(self) -> None:
        """Start a child if entries are missing. Raises nothing: a bank is a help, and no worker's task."""
        wanted = self._wanted
        if wanted is None or self.running or time.monotonic() < self._starts_from:
            return
        if not wanted.missing:
            return
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the child lives)
        try:
            self._child = subprocess.Popen(
                [*wanted.command, "--count", str(wanted.count), *wanted.options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                # A signal from the terminal is for the worker, which then decides.
                start_new_session=True,
                preexec_fn=end_with_parent(os.getpid()),
            )
        except OSError as error:
            self._failed(one_line(str(error)))

    def end(self) -> None:
        """Have the machine back."""
        if self._child is not None:
            end_child(self._child, END_SECONDS)
            self._child = None

    def _heard(self, status: int) -> None:
        self._child = None
        if status == 0:
            return
        assert self._log is not None
        self._log.seek(0)
        said = printable(self._log.read()[-LAST_BYTES:]).strip().splitlines() or ["it said nothing"]
        self._failed(one_line(said[-1]))

    def _failed(self, why: str) -> None:
        self._starts_from = time.monotonic() + AGAIN_SECONDS
        self._progress(f"the bank cannot be filled: {why}")
