"""The judge's end of the protocol: one Unix socket per rank, one thread, one clock.

A `Session` waits until every rank has sent the message that is due, and turns whatever else happens
(an exception reported by a rank, a socket that closes, a frame that is no message, a limit that the
sandbox enforces, a deadline that passes) into an error that names the guilty side. The guilty side
depends only on what the judge itself has done: before it hands over the train file nothing of the
submission can have run, so a failure is ours; from then on a failure inside the sandbox is the
submission's, whatever the ranks say.
"""

import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from harness.errors import Code, InputError, JudgeError, SubmissionError, TrainjudgeError
from harness.protocol.messages import (
    Failed,
    FromJudge,
    FromRank,
    MalformedError,
    Message,
    Progress,
    Ready,
    Stage,
    parse_from_rank,
)
from harness.protocol.text import collapsed, excerpt, printable
from harness.protocol.wire import FrameBuffer, frame
from harness.sandbox import Ending, EndReason
from harness.timed.launch import Started

M = TypeVar("M", bound=Message)
RECEIVE_BYTES = 1 << 18
# When one rank dies the others fail in their collectives: wait this long for the first cause.
GRACE_SECONDS = 1.0
SEND_SECONDS = 30.0
# A rank chooses what it says of itself. Of that, a person is shown so much.
PROGRESS_SHOWN = 8
SENTENCE_SHOWN = 200

STAGE_CODES = {
    Stage.LOADING: Code.WORKER_FAILED,
    Stage.IMPORT: Code.IMPORT_FAILED,
    Stage.SETUP: Code.SETUP_FAILED,
    Stage.WARMUP: Code.WARMUP_FAILED,
    Stage.TRAINING: Code.TRAINING_FAILED,
    Stage.RESULT: Code.RESULT_INVALID,
    Stage.OPENING: Code.OPENING_FAILED,
}
LIMIT_CODES = {
    EndReason.MEMORY: Code.MEMORY_LIMIT,
    EndReason.PROCESSES: Code.PROCESS_LIMIT,
    EndReason.OUTBOX: Code.OUTBOX_LIMIT,
}


@dataclass
class _Link:
    """One rank's connection and what has arrived of its next message."""

    rank: int
    listener: socket.socket
    connection: socket.socket | None = None
    buffer: FrameBuffer = field(default_factory=FrameBuffer)
    arrived: float = 0.0  # time.perf_counter() of the last bytes
    failure: Failed | None = None
    hung_up: bool = False


@dataclass(frozen=True)
class Gathered(Generic[M]):
    """One message of every rank, in rank order, and when the last of them had arrived.

    Attributes:
        messages: one per rank.
        at: `time.perf_counter()` of each arrival, seconds.
    """

    messages: tuple[M, ...]
    at: tuple[float, ...]

    @property
    def last(self) -> float:
        return max(self.at)


class Session:
    """The conversation with all ranks of one sandbox.

    Args:
        sockets: host folder in which the listening sockets are made, before the sandbox starts.
        world_size: how many ranks will connect.
        on_progress: told which stage rank 0 says it has reached, a few times before it is READY.
    """

    def __init__(
        self, sockets: Path, world_size: int, on_progress: Callable[[Stage], None]
    ) -> None:
        self._on_progress = on_progress
        self._selector = selectors.DefaultSelector()
        self._links = [
            _Link(rank, listen_at(sockets / f"rank{rank}.sock")) for rank in range(world_size)
        ]
        for link in self._links:
            self._selector.register(link.listener, selectors.EVENT_READ, link)
        self._running: Started | None = None
        #: set by the caller just before it hands over the train file
        self.handed_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._selector.close()
        for link in self._links:
            link.listener.close()
            if link.connection is not None:
                link.connection.close()

    def watch(self, running: Started) -> None:
        """Notice when the sandbox ends by itself or at a limit."""
        self._running = running
        self._selector.register(running.fileno(), selectors.EVENT_READ, None)

    def send(self, messages: Sequence[FromJudge]) -> None:
        """One message to each rank, in rank order.

        Raises SubmissionError or JudgeError when a rank has gone or does not read.
        """
        for link, message in zip(self._links, messages, strict=True):
            assert link.connection is not None
            try:
                link.connection.sendall(frame(message))
            except TimeoutError:
                raise self._blame(
                    Code.TIMED_OUT, f"rank {link.rank} does not read its socket"
                ) from None
            except OSError:
                raise self._first_cause() from None

    def broadcast(self, message: FromJudge) -> None:
        self.send([message] * len(self._links))

    def gather(
        self,
        kind: type[M],
        stage: Stage,
        seconds: float,
        run: int | None = None,
        max_bytes: int | None = None,
    ) -> Gathered[M]:
        """Wait until every rank has sent one `kind`.

        Args:
            kind: the message that is due.
            stage: what the ranks are doing meanwhile, for the error.
            seconds: wall time that they have.
            run: which run the messages must be of, for the kinds that say so.
            max_bytes: of one message; None: what its kind may have at most.

        Raises:
            SubmissionError: from the hand-over on, for anything that goes wrong.
            JudgeError: before it.
        """
        deadline = time.monotonic() + seconds
        limit = max(kind.max_bytes if max_bytes is None else max_bytes, Failed.max_bytes)
        messages: dict[int, M] = {}
        times: dict[int, float] = {}
        announced = 0
        while len(messages) < len(self._links):
            if time.monotonic() > deadline:
                late = [link.rank for link in self._links if link.rank not in messages]
                raise self._blame(
                    Code.TIMED_OUT,
                    f"{stage}: {_ranks(late)} did not finish within {seconds:g} seconds",
                )
            for link, message in self._receive(limit, deadline):
                if isinstance(message, Progress):
                    if link.rank == 0 and kind is Ready and announced < PROGRESS_SHOWN:
                        announced += 1
                        self._on_progress(message.stage)
                elif (
                    isinstance(message, kind)
                    and link.rank not in messages
                    and getattr(message, "run", run) == run
                ):
                    messages[link.rank] = message
                    times[link.rank] = link.arrived
                else:
                    raise self._blame(
                        Code.BAD_MESSAGE,
                        f"rank {link.rank} sent {type(message).__name__} where {kind.__name__} "
                        "was due",
                    )
        ranks = range(len(self._links))
        return Gathered(tuple(messages[r] for r in ranks), tuple(times[r] for r in ranks))

    def _receive(self, limit: int, deadline: float) -> list[tuple[_Link, FromRank]]:
        """Whatever whole messages have arrived by the next event; raises when a rank is lost."""
        received: list[tuple[_Link, FromRank]] = []
        lost = False
        for key, _ in self._selector.select(max(0.0, deadline - time.monotonic())):
            link: _Link | None = key.data
            if link is None:
                lost = True
            else:
                received += [(link, message) for message in self._attend(link, limit)]
                lost = lost or link.hung_up or link.failure is not None
        if lost:
            raise self._first_cause()
        return received

    def _attend(self, link: _Link, limit: int) -> list[FromRank]:
        """Whatever made a rank's socket readable: its connection, or bytes of its next messages."""
        if link.connection is None:
            self._accept(link)
            return []
        self._read(link)
        return self._parse(link, limit)

    def _accept(self, link: _Link) -> None:
        """Take the one connection that a rank's socket is for, and close the door behind it."""
        connection, _ = link.listener.accept()
        if self._running is not None and peer_user(connection) != self._running.user:
            connection.close()  # at level `user` another evaluation's sandbox could find our sockets
            return
        link.connection = connection
        link.connection.settimeout(SEND_SECONDS)
        self._selector.unregister(link.listener)
        link.listener.close()
        self._selector.register(link.connection, selectors.EVENT_READ, link)

    def _read(self, link: _Link) -> None:
        """Move what has arrived into the link's buffer."""
        assert link.connection is not None
        try:
            data = link.connection.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        if data:
            link.arrived = time.perf_counter()
            link.buffer.feed(data)
        else:
            link.hung_up = True
            self._selector.unregister(link.connection)

    def _parse(self, link: _Link, limit: int) -> list[FromRank]:
        """The whole messages in the link's buffer; a Failed is kept on the link instead."""
        messages: list[FromRank] = []
        try:
            while (body := link.buffer.pop(limit)) is not None:
                message = parse_from_rank(body)
                if isinstance(message, Failed):
                    link.failure = message
                else:
                    messages.append(message)
        except MalformedError as error:
            said = excerpt(str(error), SENTENCE_SHOWN)  # field names are the rank's own words
            raise self._blame(
                Code.BAD_MESSAGE, f"rank {link.rank} sent a malformed message ({said})"
            ) from None
        except ValueError as error:
            raise self._blame(Code.BAD_MESSAGE, f"rank {link.rank} sent {error}") from None
        return messages

    def _first_cause(self) -> TrainjudgeError:
        """Why the ranks broke off: a limit before a dead rank before a reported exception.

        A limit kills ranks, and a dead rank makes exceptions in the collectives of the others. So
        for a short while the judge listens on; what comes first in that order is the cause.
        """
        until = time.monotonic() + GRACE_SECONDS
        dead = [link.rank for link in self._links if link.hung_up and link.failure is None]
        nonsense: list[TrainjudgeError] = []
        while self._limit() is None and time.monotonic() < until:
            for key, _ in self._selector.select(0.05):
                link: _Link | None = key.data
                if link is None:
                    self._selector.unregister(key.fileobj)  # it stays readable: do not spin on it
                    continue
                try:
                    # Whatever a rank sends now is too late to be judged, but its Failed is wanted.
                    self._attend(link, Failed.max_bytes)
                except TrainjudgeError as error:
                    # Such as what it still sends of a commitment: of this rank no more is heard.
                    nonsense.append(error)
                    if not link.hung_up:  # else `_read` has forgotten it already
                        self._selector.unregister(key.fileobj)
                if link.hung_up and link.failure is None:
                    dead.append(link.rank)
        if (ending := self._limit()) is not None:
            return self._blame(LIMIT_CODES[ending.reason], ending.detail)
        if dead:
            # Whoever died first took the others along: torchrun ends them all.
            return self._blame(
                Code.RANK_EXITED, f"rank {dead[0]} ended or was killed before its work was done"
            )
        failed = [link for link in self._links if link.failure is not None]
        if not failed and nonsense:
            return nonsense[0]
        if not failed:
            return self._blame(Code.RANK_EXITED, "all ranks ended before their work was done")
        first = min(failed, key=lambda link: link.arrived)
        assert first.failure is not None
        return self._blame(
            STAGE_CODES[first.failure.stage],
            f"rank {first.rank}: {collapsed(first.failure.message)}",
            printable(first.failure.detail),
        )

    def _limit(self) -> Ending | None:
        ending = None if self._running is None else self._running.ended()
        return ending if ending is not None and ending.reason in LIMIT_CODES else None

    def _blame(self, code: Code, message: str, detail: str = "") -> TrainjudgeError:
        """The submission's fault from the hand-over on, ours before it."""
        if self.handed_over:
            return SubmissionError(code, message, detail)
        return JudgeError(
            Code.WORKER_FAILED, f"before the submission was loaded: {message}", detail
        )


def listen_at(path: Path) -> socket.socket:
    """A rank's door. Raises InputError: the path is too long."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise InputError(
            Code.BAD_ARGUMENT, f"cannot listen on {path}: {error}; name a shorter folder in TMPDIR"
        ) from None
    path.chmod(0o666)  # the rank may be another user; the folder is for this sandbox alone
    listener.listen(1)
    return listener


def peer_user(connection: socket.socket) -> int:
    """User id of the process that connected, as the kernel knows it (SO_PEERCRED of unix(7))."""
    credentials = struct.Struct("3i")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    _, user, _ = credentials.unpack(raw)
    return int(user)


def _ranks(ranks: Sequence[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(str(rank) for rank in ranks)
