"""Ranks that play a script against the judge's end of the sockets, and a sandbox that ends when told."""

import os
import selectors
import socket
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest

from harness.errors import SubmissionError
from harness.protocol.messages import (
    Commitment,
    Done,
    Failed,
    Message,
    Piece,
    Ready,
    Stage,
)
from harness.protocol.wire import frame
from harness.sandbox import Ending, EndReason
from harness.timed import session as session_module
from harness.timed.session import Session

Script = Callable[[socket.socket], None]
Deed = Callable[[], object]
#: What a rank reports when another one has died.
BROKEN_PIPE = Failed(stage=Stage.TRAINING, message="RuntimeError: connection closed by peer")
WAIT = 10.0
REAL_GRACE = session_module.GRACE_SECONDS


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each failure would be most of this file's time."""
    monkeypatch.setattr(session_module, "GRACE_SECONDS", 0.1)


class FakeSandbox:
    """Stands in for a running sandbox: a pipe that becomes readable when it has ended.

    Args:
        user: whose processes are its ranks; this one's by default.
        when_asked: done when the judge first asks whether the sandbox has ended. It asks when it
            has lost a rank and begins to look for the cause, so what is done here is surely later.
    """

    def __init__(self, user: int | None = None, when_asked: Deed | None = None) -> None:
        self.user = os.geteuid() if user is None else user
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            weakref.finalize(self, os.close, descriptor)
        self._ending: Ending | None = None
        self._when_asked = when_asked

    def fileno(self) -> int:
        return self._read

    def ended(self) -> Ending | None:
        deed, self._when_asked = self._when_asked, None
        if deed is not None:
            deed()
        return self._ending

    def end(self, reason: EndReason) -> None:
        self._ending = Ending(reason, None, f"the sandbox hit its limit: {reason}")
        os.write(self._write, b"x")


def watch(judge: Session, sandbox: FakeSandbox) -> None:
    judge.watch(sandbox)  # type: ignore[arg-type]


@contextmanager
def session(tmp_path: Path, *scripts: Script, handed_over: bool = True) -> Iterator[Session]:
    """A session with one thread for each rank that connects and plays its script."""

    def play(rank: int, script: Script) -> None:
        # The judge may hang up at any moment: that is what these tests are about.
        with socket.socket(socket.AF_UNIX) as link, suppress(ConnectionError):
            link.connect(str(tmp_path / f"rank{rank}.sock"))
            script(link)

    with Session(tmp_path, len(scripts), lambda stage: None) as judge:
        judge.handed_over = handed_over
        threads = [
            threading.Thread(target=play, args=item, daemon=True) for item in enumerate(scripts)
        ]
        for thread in threads:
            thread.start()
        yield judge


def connect(tmp_path: Path, rank: int, *messages: Message) -> socket.socket:
    """A rank that has connected and said this, before the judge has looked at its socket."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(WAIT)  # a test must not hang where the judge sends nothing
    link.connect(str(tmp_path / f"rank{rank}.sock"))
    link.sendall(b"".join(frame(message) for message in messages))
    return link


@contextmanager
def ranks(
    tmp_path: Path, *said: Message | None, shown: Callable[[Stage], None] = lambda stage: None
) -> Iterator[tuple[Session, list[socket.socket]]]:
    """A session whose ranks are connected, in this thread, and have said one thing or nothing."""
    with ExitStack() as stack:
        judge = stack.enter_context(Session(tmp_path, len(said), shown))
        judge.handed_over = True
        links = [
            connect(tmp_path, rank, *([] if message is None else [message]))
            for rank, message in enumerate(said)
        ]
        for link in links:
            stack.enter_context(link)
        yield judge, links


def ready(link: socket.socket) -> None:
    link.sendall(frame(Ready(run=0)))
    wait_for_end(link)


def wait_for_end(link: socket.socket) -> None:
    link.recv(1)


def silent(link: socket.socket) -> None:
    wait_for_end(link)


def says(data: bytes) -> Script:
    def script(link: socket.socket) -> None:
        link.sendall(data)
        wait_for_end(link)

    return script


def body_frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def refusal(judge: Session, seconds: float = WAIT) -> SubmissionError:
    with pytest.raises(SubmissionError) as caught:
        judge.gather(Ready, Stage.SETUP, seconds, run=0)
    return caught.value


def rejected(tmp_path: Path, *scripts: Script, seconds: float = WAIT) -> SubmissionError:
    with session(tmp_path, *scripts) as judge:
        return refusal(judge, seconds)


def failed(message: str, stage: Stage = Stage.TRAINING) -> Failed:
    return Failed(stage=stage, message=message)


def done(tokens: int) -> Done:
    return Done(run=0, final_loss=1.0, total_tokens=tokens)


def large_commitment() -> Commitment:
    """Over the 64 KiB of other messages, and little enough for a socket to hold."""
    piece = Piece(
        name="n" * 200, tensor_shape=(1,), offset=(0,), shape=(1,), dtype="float32", digest="0" * 64
    )
    commitment = Commitment(run=0, pieces=(piece,) * 400)
    assert 100_000 < len(frame(commitment)) < 150_000
    return commitment


class CountingSelector(selectors.DefaultSelector):
    """Counts how often it is asked. A judge that spins asks thousands of times."""

    turns: ClassVar[int] = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        CountingSelector.turns += 1
        return super().select(timeout)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> type[CountingSelector]:
    monkeypatch.setattr(selectors, "DefaultSelector", CountingSelector)
    CountingSelector.turns = 0
    return CountingSelector
