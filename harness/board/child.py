"""A child process that works for a long time under the right to time on a machine: what it prints, its end.

A child that crashes, or is killed for its memory, takes nobody with it. If its parent is killed, the
kernel sends it SIGTERM, and it cleans up after itself.
"""

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from harness.host.timing import HELD
from harness.protocol.text import one_line, printable
from harness.sandbox.judge_process import this_process
from harness.timed.workspace import JUDGE

#: Of what it prints while it works; what is shown to whoever waits.
PROGRESS_BYTES: Final = 16 * 1024
PR_SET_PDEATHSIG: Final = 1


class Child:
    """A running one.

    Args:
        command: what it is.
        log: file that gets what it prints to stderr.
        inherited: descriptors that stay open as long as it lives; one of them holds the machine.
    """

    def __init__(
        self, command: Sequence[str], log: Path, inherited: Sequence[socket.socket]
    ) -> None:
        self._log = log
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=written,
                env={**os.environ, "COLUMNS": "200", HELD: "1"},
                pass_fds=[each.fileno() for each in inherited],
                # A signal from the terminal is for the worker, which then decides.
                start_new_session=True,
                preexec_fn=end_with_parent(os.getpid()),
            )

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """The end of what it has printed, fit to be shown."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - PROGRESS_BYTES))
            return printable(file.read(PROGRESS_BYTES))

    def end(self, seconds: float) -> None:
        """Ask it to end and wait so long; kill it if it does not."""
        end_child(self._process, seconds)


def mark_folder(folder: Path) -> None:
    """Write into the folder of a child whose it is: `validator clean` sees whether that process lives."""
    private = folder / "private"
    private.mkdir()
    (private / JUDGE).write_text(this_process())


def last_line(said: str) -> str:
    """What a child said last, fit to be shown on one line."""
    return one_line((said.strip().splitlines() or ["it said nothing"])[-1])


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
