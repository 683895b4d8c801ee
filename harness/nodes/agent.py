"""An agent: runs the ranks of one machine for a judge on another. One evaluation at a time.

It holds what the judge would hold if the sandbox were beside it: the work folder, the challenge before
GO, the sandbox and its end. What ranks say it passes on unread.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError, JudgeError
from harness.nodes.channel import SILENCE_SECONDS, Channel, LostError
from harness.nodes.key import server_side
from harness.nodes.priority import above_the_ranks
from harness.nodes.serving import Serving
from harness.nodes.words import FROM_JUDGE, Refused
from harness.sandbox import NotEndedError, Sandbox

HANDSHAKE_SECONDS: Final = 10.0
#: The next judge may come while what the last one has left is cleared away.
CLEARING_SECONDS: Final = 5.0


@dataclass
class Agent:
    """What an agent is.

    Attributes:
        held: the benchmarks that it has, each with its snapshot.
        sandbox: at the level at which it runs ranks.
        fabric: this machine's IPv4 address on the network between the machines.
        key: file that it shares with the judge.
        tell: gets a line for whoever watches.
    """

    held: tuple[tuple[LoadedHparams, Snapshot], ...]
    sandbox: Sandbox
    fabric: str
    key: Path
    tell: Callable[[str], None]

    def serve(self, host: str, port: int, ready: Callable[[int], None]) -> None:
        """Until SIGTERM or SIGINT, which end what runs.

        Args:
            ready: told the port once judges can connect.

        Raises:
            InputError: the key is none, or nothing can listen there.
            NotEndedError: something of a sandbox is left, and disturbs whatever would run here next.
        """
        asyncio.run(self._serve(host, port, ready))

    async def _serve(self, host: str, port: int, ready: Callable[[int], None]) -> None:
        context = server_side(self.key)
        above_the_ranks()
        self._free = asyncio.Lock()
        self._over = asyncio.Event()
        self._stuck: NotEndedError | None = None
        talks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.add(task)
            task.add_done_callback(talks.discard)
            channel = Channel(reader, writer)
            with suppress(asyncio.CancelledError):  # this agent ends
                await self._in_turn(channel, str(writer.get_extra_info("peername")[0]))
            await channel.close()

        try:
            server = await asyncio.start_server(
                connected, host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:
            raise InputError(
                Code.BAD_ARGUMENT, f"cannot listen on {host}:{port}: {error.strerror or error}"
            ) from None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._over.set)
        async with server:
            ready(server.sockets[0].getsockname()[1])
            await self._over.wait()
            server.close()
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)
        if self._stuck is not None:
            raise self._stuck

    async def _in_turn(self, channel: Channel, judge: str) -> None:
        """One judge at a time."""
        with suppress(LostError):
            try:
                async with asyncio.timeout(CLEARING_SECONDS):
                    await self._free.acquire()
            except TimeoutError:
                await channel.send(Refused(Code.MACHINE_BUSY, "it works for another judge"))
                return
            try:
                await self._talk(channel, judge)
            finally:
                self._free.release()

    async def _talk(self, channel: Channel, judge: str) -> None:
        """From a judge's first word until it is gone; then nothing of the evaluation is left.

        The connection ends before the ranks do: the judge must not take our end for theirs.
        """
        self.tell(f"runs ranks for a judge at {judge}")
        serving = Serving(channel, self.held, self.sandbox, self.fabric)
        last: Refused | None = None
        why = "done"
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    word = await channel.receive(FROM_JUDGE)
                await serving.hear(word)
        except TimeoutError:
            why = "nothing was heard of the judge"
        except LostError as lost:
            why = str(lost)
        except asyncio.CancelledError:
            why = "this agent ends"
            last = Refused(Code.NODE_LOST, why)
            raise
        except (InputError, JudgeError) as error:
            why = error.message
            last = Refused(error.code, why[:4_000])
        except Exception as error:
            why = f"this machine failed ({type(error).__name__}: {error})"
            last = Refused(Code.INTERNAL, why[:4_000])
        finally:
            # Also where this task is cancelled: what runs has to end before the agent does.
            await asyncio.shield(asyncio.ensure_future(self._end(channel, serving, last)))
            self.tell(f"free again: {why}")

    async def _end(self, channel: Channel, serving: Serving, last: Refused | None) -> None:
        if last is not None:
            with suppress(LostError):
                await channel.send(last)
        await channel.close()
        try:
            await serving.close()
        except NotEndedError as stuck:
            self._stuck = stuck
            self._over.set()
