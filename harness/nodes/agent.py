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
from harness.nodes.channel import Channel, LostError
from harness.nodes.key import server_side
from harness.nodes.serving import Serving
from harness.nodes.words import FROM_JUDGE, Refused
from harness.sandbox import Sandbox

#: A judge says something at least every two seconds.
SILENCE_SECONDS: Final = 30.0
HANDSHAKE_SECONDS: Final = 10.0
#: The next judge may come while what the last one has left is cleared away.
CLEARING_SECONDS: Final = 5.0


@dataclass(frozen=True)
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

        Raises InputError: the key is none, or nothing can listen there.
        """
        asyncio.run(self._serve(host, port, ready))

    async def _serve(self, host: str, port: int, ready: Callable[[int], None]) -> None:
        context = server_side(self.key)
        free = asyncio.Lock()
        talks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.add(task)
            task.add_done_callback(talks.discard)
            channel = Channel(reader, writer)
            with suppress(LostError):
                try:
                    async with asyncio.timeout(CLEARING_SECONDS):
                        await free.acquire()
                except TimeoutError:
                    await channel.send(Refused(Code.MACHINE_BUSY, "it works for another judge"))
                else:
                    try:
                        await self._talk(channel, str(writer.get_extra_info("peername")[0]))
                    finally:
                        free.release()
            channel.close()

        try:
            server = await asyncio.start_server(
                connected, host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:
            raise InputError(
                Code.BAD_ARGUMENT, f"cannot listen on {host}:{port}: {error.strerror or error}"
            ) from None
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with server:
            ready(server.sockets[0].getsockname()[1])
            await stop.wait()
            server.close()
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(self, channel: Channel, judge: str) -> None:
        """One judge, from its first word until it is gone; then nothing of the evaluation is left."""
        self.tell(f"runs ranks for a judge at {judge}")
        serving = Serving(channel, self.held, self.sandbox, self.fabric)
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
        except (InputError, JudgeError) as error:
            why = error.message
            with suppress(LostError):
                await channel.send(Refused(error.code, error.message[:4_000]))
        except OSError as error:
            why = f"this machine failed: {error}"
            with suppress(LostError):
                await channel.send(Refused(Code.INTERNAL, why[:4_000]))
        finally:
            # Also where this task is cancelled: what runs has to end before the agent does.
            await asyncio.shield(asyncio.ensure_future(serving.close()))
            self.tell(f"free again: {why}")
