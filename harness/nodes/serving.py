"""One evaluation at an agent: a work folder, a sandbox, and what its ranks and the judge say."""

import asyncio
import os
import socket
import time
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import Final

from harness import machine
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError, JudgeError
from harness.files import make_readable
from harness.host.known_peak import settled
from harness.host.peak import peak_of
from harness.host.site import spare_gpus
from harness.host.timing import HELD, hold_machine
from harness.machine import Device
from harness.nodes.channel import Channel, LostError, write_or_close
from harness.nodes.outbox import sent
from harness.nodes.priority import as_the_ranks
from harness.nodes.words import (
    VERSION,
    Begun,
    Collect,
    Collected,
    Ended,
    FromJudge,
    FromRank,
    Joined,
    Kept,
    Left,
    Measure,
    Measured,
    Odd,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Put,
    Refused,
    Release,
    Released,
    Start,
    Stop,
    ToRank,
)
from harness.opening.files import MAX_FILES
from harness.sandbox import EndReason, Fabric, Job, Meeting, NotEndedError, Running, Sandbox
from harness.timed.job import submission_job
from harness.timed.launch import room_of
from harness.timed.others import Reading, others_share
from harness.timed.session import listen_at, peer_user
from harness.timed.workspace import Workspace, check_room

#: Inside the network of the sandboxes: nobody else can be there.
STORE_PORT: Final = 29_400
RECEIVE_BYTES: Final = 1 << 18
#: Of what a sandbox has printed, from its beginning and from its end.
LOG_CHARACTERS: Final = 100_000
DETAIL_CHARACTERS: Final = 4_000

NEVER_STARTED: Final = Ended(
    EndReason.STOPPED, None, "it was not started", left=False, others=0.0, room=None, log=""
)


class Serving:
    """Hears the judge's words in order, one at a time.

    Args:
        held: the benchmarks whose snapshot is here.
        fabric: this machine's address on the network between the machines.
    """

    def __init__(
        self,
        channel: Channel,
        held: tuple[tuple[LoadedHparams, Snapshot], ...],
        sandbox: Sandbox,
        fabric: str,
    ) -> None:
        self._channel = channel
        self._held = held
        self._sandbox = sandbox
        self._fabric = fabric
        self._own = ExitStack()
        self._doors: list[socket.socket] = []
        self._ranks: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: Running | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._ended = False

    async def hear(self, word: FromJudge) -> None:
        """Do what it asks. Raises InputError or JudgeError: it cannot be done, and LostError."""
        match word:
            case Ping(number):
                await self._channel.send(Pong(number, time.perf_counter_ns()))
            case ToRank(rank, data):
                if (writer := self._ranks.get(rank)) is not None:
                    write_or_close(writer, data)
            case Release(name):
                await self._release(name)
            case Put():
                await self._put(word)
            case Prepare():
                await self._prepare(word)
            case Measure():
                self._meanwhile(self._measure())
            case Start():
                await self._start(word)
            case Stop():
                if self._running is None:
                    await self._channel.send(NEVER_STARTED)
                self._stop_once()
            case Collect():
                self._meanwhile(self._collect())

    async def close(self) -> None:
        """End what runs, and remove what was written. Raises NotEndedError: something of it is left."""
        # A sandbox is used by one thread at a time: who starts or ends it already does so to the end.
        for task in self._tasks - {self._starting, self._stopping}:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._running is not None:
            asyncio.get_running_loop().remove_reader(self._running.fileno())
        for door in self._doors:
            door.close()
        for writer in self._ranks.values():
            writer.close()
        await asyncio.to_thread(self._own.close)

    def _meanwhile(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """What takes long: pings are answered beside it."""
        task = asyncio.ensure_future(self._told(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _told(self, work: Coroutine[None, None, None]) -> None:
        with suppress(LostError):  # whoever listens notices it too
            try:
                await work
            except (InputError, JudgeError) as error:
                await self._channel.send(Refused(error.code, error.message[:DETAIL_CHARACTERS]))
            except LostError:
                raise
            except Exception as error:
                what = f"that machine failed ({type(error).__name__}: {error})"
                await self._channel.send(Refused(Code.INTERNAL, what[:DETAIL_CHARACTERS]))

    # --- before the launch ----------------------------------------------------------------------

    async def _prepare(self, task: Prepare) -> None:
        if task.version != VERSION:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"this agent speaks version {VERSION} of the agents' words, and the judge {task.version}: "
                "install the same trainjudge on all machines",
            )
        self._loaded, self._snapshot = self._benchmark(task)
        if not os.environ.get(HELD):
            held = hold_machine()
            if held is None:
                raise JudgeError(Code.MACHINE_BUSY, "something else is timed on that machine")
            self._own.enter_context(held)
        hparams = self._loaded.hparams
        self._device: Device = await asyncio.to_thread(
            machine.pick_device, hparams.world.device, task.ranks
        )
        check_room(hparams.limits.outbox_bytes)
        self._ranks_here = range(task.index * task.ranks, (task.index + 1) * task.ranks)
        self._index = task.index
        here = await asyncio.to_thread(machine.describe, self._device, task.ranks)
        await self._channel.send(
            Prepared(
                here.model_dump_json(),
                self._device,
                self._sandbox.level,
                self._fabric,
                tuple(spare_gpus(self._sandbox, self._device, task.ranks)),
            )
        )

    def _benchmark(self, task: Prepare) -> tuple[LoadedHparams, Snapshot]:
        for loaded, snapshot in self._held:
            manifest = snapshot.manifest
            here = loaded.sha256, manifest.model_sha256, manifest.data_sha256
            if here == (task.hparams_sha256, task.model_sha256, task.data_sha256):
                return loaded, snapshot
        raise InputError(
            Code.BAD_ARGUMENT,
            "it does not hold this benchmark with this snapshot: give both machines the same files",
        )

    async def _measure(self) -> None:
        count, hparams = len(self._ranks_here), self._loaded.hparams
        here = machine.describe(self._device, count)
        peak = await asyncio.to_thread(as_the_ranks, lambda: peak_of(here, hparams, count))
        peak, doubts = settled(peak, peak) if peak.source == "measured" else (peak, [])
        await self._channel.send(Measured(peak.tflops, peak.source, peak.device, tuple(doubts)))

    # --- the launch -----------------------------------------------------------------------------

    async def _start(self, asked: Start) -> None:
        self._workspace = self._own.enter_context(Workspace())
        fabric = Fabric(asked.number, self._index, asked.machines, asked.addresses)
        job = submission_job(
            self._loaded.hparams,
            self._snapshot,
            self._device,
            len(self._ranks_here),
            self._workspace,
            Meeting(fabric, STORE_PORT),
        )
        sockets = self._workspace.sockets
        doors = {rank: listen_at(sockets / f"rank{rank}.sock") for rank in self._ranks_here}
        self._doors.extend(doors.values())
        self._before = Reading.now()
        self._starting = self._meanwhile(self._start_sandbox(job))
        await asyncio.shield(self._starting)
        if self._running is None:
            return  # it has been said why
        asyncio.get_running_loop().add_reader(self._running.fileno(), self._stop_once)
        for rank, door in doors.items():
            self._meanwhile(self._pump(rank, door))
        await self._channel.send(Begun())

    async def _start_sandbox(self, job: Job) -> None:
        started = await asyncio.to_thread(as_the_ranks, lambda: self._sandbox.start(job))
        self._running = self._own.enter_context(started)

    async def _pump(self, rank: int, door: socket.socket) -> None:
        """One rank: its one connection, and what it says, until it hangs up."""
        loop = asyncio.get_running_loop()
        assert self._running is not None
        door.setblocking(False)
        while True:
            connection, _ = await loop.sock_accept(door)
            if peer_user(connection) == self._running.user:
                break
            connection.close()
        door.close()
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        self._ranks[rank] = writer
        await self._channel.send(Joined(rank))
        with suppress(OSError):
            while data := await reader.read(RECEIVE_BYTES):
                await self._channel.send(FromRank(rank, data, time.perf_counter_ns()))
        await self._channel.send(Left(rank))
        writer.close()

    async def _put(self, put: Put) -> None:
        folder = self._workspace.private if put.held else self._workspace.inbox
        part = self._workspace.private / f"{put.name}.part"
        with part.open("ab") as file:
            file.write(put.data)
        if put.last:
            make_readable(part)
            part.rename(folder / put.name)
            await self._channel.send(Kept(put.name))

    async def _release(self, name: str) -> None:
        os.rename(self._workspace.private / name, self._workspace.inbox / name)  # noqa: PTH104
        await self._channel.send(Released(name, time.perf_counter_ns()))

    # --- the end --------------------------------------------------------------------------------

    def _stop_once(self) -> None:
        """The judge says so, or the sandbox has ended by itself."""
        if self._stopping is None and self._running is not None:
            asyncio.get_running_loop().remove_reader(self._running.fileno())
            self._stopping = self._meanwhile(self._stop(self._running))

    async def _stop(self, running: Running) -> None:
        """Nothing of the sandbox is left when this has been said; or it is said that this is not known."""
        try:
            ending = await asyncio.to_thread(running.stop)
        except Exception as error:
            what = error.message if isinstance(error, JudgeError) else str(error)
            failed, left = what[:DETAIL_CHARACTERS], isinstance(error, NotEndedError)
            said = Ended(
                "", None, failed, left, others=0.0, room=None, log=_both_ends(running.log())
            )
        else:
            said = Ended(
                reason=ending.reason,
                exit_status=ending.exit_status,
                detail=ending.detail[:DETAIL_CHARACTERS],
                left=False,
                others=others_share(self._before, Reading.now()),
                room=room_of(self._workspace.outbox),
                log=_both_ends(running.log()),
            )
        self._ended = True
        await self._channel.send(said)

    async def _collect(self) -> None:
        if not self._ended:
            raise JudgeError(Code.INTERNAL, "the outbox was asked for while the sandbox runs")
        most = self._loaded.hparams.limits.outbox_bytes
        for word in sent(self._workspace.outbox, self._ranks_here, MAX_FILES, most):
            await self._channel.send(word)
            if isinstance(word, Odd):
                return
        await self._channel.send(Collected())


def _both_ends(log: str) -> str:
    if len(log) <= 2 * LOG_CHARACTERS:
        return log
    return f"{log[:LOG_CHARACTERS]}\n[...]\n{log[-LOG_CHARACTERS:]}"
