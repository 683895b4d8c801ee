"""The judge's end of one agent. Lives in an event loop of its own thread (`nodes.py`).

For each rank of that machine it connects to the socket that the judge's session has for it, as the rank
would have done: the session cannot tell them apart, and needs not.
"""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from harness.errors import Code, InputError, JudgeError, Side, TrainjudgeError
from harness.nodes.channel import SILENCE_SECONDS, Channel, LostError, write_or_close
from harness.nodes.words import (
    FROM_AGENT,
    Collect,
    Collected,
    Ended,
    Folder,
    FromAgent,
    FromRank,
    Joined,
    Left,
    Odd,
    Piece,
    Ping,
    Pong,
    Refused,
    ToRank,
    Word,
)

A = TypeVar("A", bound=Word)
T = TypeVar("T")
CONNECT_SECONDS: Final = 10.0
BEAT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 120.0
RECEIVE_BYTES: Final = 1 << 18
PINGS: Final = 9
#: That have arrived and that nobody has read: portions of an outbox.
MOST_ANSWERS: Final = 16


@dataclass(frozen=True)
class Offset:
    """A machine's clock beside the judge's, seconds.

    Attributes:
        seconds: what it shows more.
        uncertainty: either way: half of the shortest way there and back.
    """

    seconds: float
    uncertainty: float


@dataclass
class _Rank:
    """A rank of that machine.

    Attributes:
        said_at: of its clock, when the last of what the rank has said had arrived there, seconds.
    """

    writer: asyncio.StreamWriter
    said_at: float = 0.0


@dataclass
class Node:
    """One machine of an evaluation.

    Attributes:
        address: of its agent, HOST:PORT.
        sockets: the judge's folder of sockets, once there is a session.
        told: called when the sandbox there has ended, or the machine is lost.
        ended: how its sandbox ended.
        lost: why nothing more will be heard of it.
        ranks: those that have connected there.
    """

    address: str
    channel: Channel
    told: Callable[[], None] = lambda: None
    sockets: Path | None = None
    ended: Ended | None = None
    lost: str = ""
    ranks: dict[int, _Rank] = field(default_factory=dict)
    _answers: "asyncio.Queue[FromAgent | None]" = field(
        default_factory=lambda: asyncio.Queue(MOST_ANSWERS)
    )
    _asked: bool = False
    _pongs: dict[int, "asyncio.Future[tuple[float, float]]"] = field(default_factory=dict)
    _pings: int = 0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @classmethod
    async def connect(cls, address: str, context: ssl.SSLContext) -> "Node":
        """Raises JudgeError(NODE_LOST): nobody answers there, or it has another key."""
        host, port = host_and_port(address)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(host, port, ssl=context)
        except (OSError, TimeoutError, EOFError) as error:
            raise JudgeError(
                Code.NODE_LOST, f"no agent answers at {address}: {_why(error)}"
            ) from None
        node = cls(address, Channel(reader, writer))
        node._keep(node._listen())
        node._keep(node._beat())
        return node

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for rank in self.ranks.values():
            rank.writer.close()
        await self.channel.close()

    # --- asking ---------------------------------------------------------------------------------

    async def tell(self, word: Word) -> None:
        """Raises JudgeError(NODE_LOST)."""
        await self._say(word)
        self.check()

    async def _say(self, word: Word) -> None:
        """Whoever reads the answer learns whether it is lost, and what its last word was."""
        try:
            await self.channel.send(word)
        except LostError as lost:
            self._lose(str(lost))

    async def ask(self, word: Word, kind: type[A]) -> A:
        """Say a word and wait for its answer. One at a time.

        Raises JudgeError or InputError: the agent cannot do it; JudgeError(NODE_LOST).
        """
        self._asked = True
        await self._say(word)
        return await self.answer(kind)

    async def answer(self, kind: type[A]) -> A:
        found = await self._next()
        if not isinstance(found, kind):
            raise self._out_of_turn(found)
        return found

    async def opened(self) -> AsyncIterator[Folder | Piece | Odd]:
        """What lies in the outbox there. Raises as `ask`."""
        self._asked = True
        await self._say(Collect())
        while not isinstance(found := await self._next(), Collected):
            if not isinstance(found, (Folder, Piece, Odd)):
                raise self._out_of_turn(found)
            yield found
            if isinstance(found, Odd):
                return

    async def _next(self) -> FromAgent:
        """The next answer; what had arrived before it was lost comes first."""
        self._asked = True
        try:
            if not self.lost or not self._answers.empty():
                async with asyncio.timeout(ANSWER_SECONDS):
                    if (found := await self._answers.get()) is not None:
                        if isinstance(found, Refused):
                            raise self._refused(found)
                        return found
        except TimeoutError:
            self._lose(f"no answer within {ANSWER_SECONDS:g} seconds")
        finally:
            self._asked = False
        raise self._gone()

    def check(self) -> None:
        """Raises JudgeError(NODE_LOST): nothing more will be heard of it."""
        if self.lost:
            raise self._gone()

    def _gone(self) -> JudgeError:
        return JudgeError(Code.NODE_LOST, f"the machine of {self.address} is lost: {self.lost}")

    def _out_of_turn(self, word: FromAgent) -> JudgeError:
        self._lose(f"it said {type(word).__name__}, which was not due")
        return self._gone()

    def _refused(self, word: Refused) -> TrainjudgeError:
        known = {code.value: code for code in Code}
        code = known.get(word.code, Code.INTERNAL)
        error = InputError if code.side is Side.CALLER else JudgeError
        return error(code, f"{self.address}: {word.message}")

    # --- clocks ---------------------------------------------------------------------------------

    async def offset(self) -> Offset:
        """Compare the clocks, as NTP does (RFC 5905): of some pings the shortest counts."""
        best: Offset | None = None
        for _ in range(PINGS):
            sent = time.perf_counter()
            there, back = await self._ping()
            half = (back - sent) / 2
            if best is None or half < best.uncertainty:
                best = Offset(there - (sent + half), half)
        assert best is not None
        return best

    async def _ping(self) -> tuple[float, float]:
        """Its clock, and ours when the answer had arrived. Raises JudgeError(NODE_LOST)."""
        self._pings += 1
        number = self._pings
        self._pongs[number] = asyncio.get_running_loop().create_future()
        try:
            await self.tell(Ping(number))
            async with asyncio.timeout(SILENCE_SECONDS):
                return await self._pongs[number]
        except TimeoutError:
            self._lose(f"silent for {SILENCE_SECONDS:g} seconds")
            raise self._gone() from None
        finally:
            del self._pongs[number]

    async def _beat(self) -> None:
        with suppress(JudgeError):
            while True:
                await self._ping()
                await asyncio.sleep(BEAT_SECONDS)

    # --- hearing --------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            while True:
                await self._hear(await self.channel.receive(FROM_AGENT))
        except LostError as lost:
            self._lose(str(lost))
        except Exception as error:
            self._lose(f"a defect of the judge ({type(error).__name__}: {error})")

    async def _hear(self, word: FromAgent) -> None:
        match word:
            case FromRank(number, data, at):
                if (rank := self.ranks.get(number)) is not None:
                    rank.said_at = at * 1e-9
                    write_or_close(rank.writer, data)
            case Pong(number, at):
                if (waiting := self._pongs.get(number)) is not None and not waiting.done():
                    waiting.set_result((at * 1e-9, time.perf_counter()))
            case Joined(number):
                await self._join(number)
            case Left(number):
                if (rank := self.ranks.get(number)) is not None:
                    rank.writer.close()
            case Ended():
                self.ended = word
                self.told()
            case Refused() if not self._asked:
                self._lose(word.message)
            case _:
                await self._answers.put(word)

    async def _join(self, number: int) -> None:
        """Of a rank that another machine has had already nothing more is heard."""
        assert self.sockets is not None
        with suppress(OSError):
            path = self.sockets / f"rank{number}.sock"
            reader, writer = await asyncio.open_unix_connection(path)
            self.ranks[number] = _Rank(writer)
            self._keep(self._to_rank(number, reader))

    async def _to_rank(self, number: int, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, LostError):
            while data := await reader.read(RECEIVE_BYTES):
                await self.channel.send(ToRank(number, data))

    def _lose(self, why: str) -> None:
        """Said before its ranks hang up, so that nobody takes that for their own doing."""
        if self.lost:
            return
        self.lost = why
        self.told()
        if not self._answers.full():  # else there is something to read, and then it is seen
            self._answers.put_nowait(None)
        for waiting in self._pongs.values():
            if not waiting.done():
                waiting.set_exception(JudgeError(Code.NODE_LOST, why))
        for rank in self.ranks.values():
            rank.writer.close()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "it has another key"
    if not isinstance(error, OSError) or error.errno is None:
        return "silence"
    # Below zero it is of the search for a name, which says it in words.
    return os.strerror(error.errno).lower() if error.errno > 0 else str(error.strerror)


def host_and_port(address: str) -> tuple[str, int]:
    """Raises InputError: it is no HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(Code.BAD_ARGUMENT, f"{address!r} is no address of an agent: say HOST:PORT")
    return host, int(port)


async def every(*works: Coroutine[Any, Any, T]) -> list[T]:
    """Wait for all of them, also where one fails; the first failure is raised then."""
    found = await asyncio.gather(*works, return_exceptions=True)
    done = []
    for each in found:
        if isinstance(each, BaseException):
            raise each
        done.append(each)
    return done
