"""The judge as a child process of a worker: `validator run`, told to end as a person would tell it.

A judge that crashes, or is killed for its memory, takes no worker with it. If the worker itself is
killed, the kernel sends the judge SIGTERM, and it cleans up after itself.
"""

import ctypes
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from harness.errors import Code, InputError
from harness.host.timing import HELD
from harness.protocol.text import printable
from harness.result import EvaluationResult
from harness.sandbox.judge_process import this_process
from harness.timed.workspace import JUDGE

#: A judge that was asked to end has this long to end its sandbox and remove its folder.
END_SECONDS: Final = 60.0
#: Of what the judge prints while it works; what is shown to whoever waits.
PROGRESS_BYTES: Final = 16 * 1024
PR_SET_PDEATHSIG: Final = 1
SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.py")


@dataclass(frozen=True)
class Order:
    """What to judge and how.

    Attributes:
        command: the judge's, without the file: `validator run` and where it is.
        file_name: as the author calls it; used if it is harmless, since results show it.
        source: the train file.
        options: of the command.
    """

    command: tuple[str, ...]
    file_name: str
    source: bytes
    options: tuple[str, ...]


class JudgeProcess:
    """A running judge; leaving the `with` block ends it.

    Args:
        order: what to judge.
        folder: empty, gone after the evaluation.
        inherited: descriptors that stay open as long as the judge lives; one of them holds the machine.
    """

    def __init__(self, order: Order, folder: Path, inherited: Sequence[socket.socket]) -> None:
        private = folder / "private"
        private.mkdir()
        (private / JUDGE).write_text(this_process())  # `validator clean` sees whose the folder is
        named = order.file_name if SAFE_NAME.fullmatch(order.file_name) else "submission.py"
        file = folder / "source" / named
        file.parent.mkdir()
        file.write_bytes(order.source)
        self._result = folder / "result.json"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*order.command, str(file), "--json", str(self._result), *order.options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "COLUMNS": "200", HELD: "1"},
                pass_fds=[each.fileno() for each in inherited],
                # A signal from the terminal is for the worker, which then decides.
                start_new_session=True,
                preexec_fn=end_with_parent(os.getpid()),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """The end of what it has printed, fit to be shown."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - PROGRESS_BYTES))
            return printable(file.read(PROGRESS_BYTES))

    def result(self) -> EvaluationResult | None:
        """Its document; None where it wrote none, or was killed while it did."""
        try:
            return EvaluationResult.model_validate_json(self._result.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def end(self) -> None:
        """Ask it to end and wait. Its sandbox ends with it: the lifeline of the supervisor closes."""
        end_child(self._process, END_SECONDS)


@dataclass(frozen=True)
class Judged:
    """What came of a judge: its result, else how it ended and what it said last.

    Attributes:
        lost: why nobody knows how it ended, as where its machine died; else empty.
    """

    result: EvaluationResult | None
    status: int | None
    last_line: str
    stopped: bool
    lost: str = ""

    @property
    def cause(self) -> str:
        """Why there is no result."""
        if self.lost:
            return self.lost
        if self.stopped:
            return "the worker was asked to end"
        by_signal = self.status is not None and self.status < 0
        ending = f"signal {-(self.status or 0)}" if by_signal else f"status {self.status}"
        return f"the judge ended with {ending} and no result: {self.last_line}"

    def check_machine(self) -> None:
        """Raises InputError where the judge could not work here: the next one would fail as well."""
        if self.result is None and self.status == InputError.exit_status:
            raise InputError(
                Code.BAD_ARGUMENT, f"this machine cannot judge this benchmark: {self.last_line}"
            )


def end_child(child: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Ask a process to end and wait so long; kill it if it does not. One that has ended is left alone."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def end_with_parent(parent: int) -> Callable[[], None]:
    """For `preexec_fn`: the child gets SIGTERM when the parent is gone, even if it is already."""
    libc = ctypes.CDLL(None)

    def ask_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            signal.raise_signal(signal.SIGTERM)

    return ask_kernel
