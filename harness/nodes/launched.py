"""One launch of ranks on several machines: what the timed part asks of it."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.errors import Code, JudgeError
from harness.files import write_readable
from harness.nodes.loop import Loop
from harness.nodes.node import Node, Offset, every
from harness.nodes.outbox import Receiving
from harness.nodes.words import PORTION, Ended, Kept, Put, Release, Released, Stop
from harness.sandbox import Ending, EndReason, NotEndedError
from harness.timed.delay import NodeDelay
from harness.timed.workspace import Workspace

#: What ending a sandbox may take, and some more.
STOP_SECONDS: Final = 150.0


class RunningNodes:
    """The sandboxes of all machines: the end of one is the end of all."""

    def __init__(self, loop: Loop, nodes: Sequence[Node]) -> None:
        self.user = os.geteuid()  # who connects to the session's sockets: this process
        self._loop = loop
        self._nodes = tuple(nodes)
        self._event = os.eventfd(0, os.EFD_CLOEXEC)
        for node in nodes:
            node.told = lambda: os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """End what runs still. Nothing is raised: whoever cared has called `stop`."""
        with suppress(JudgeError):
            self.stop()
        self._loop.run(self._forget())

    async def _forget(self) -> None:
        for node in self._nodes:
            node.told = lambda: None
        os.close(self._event)

    def fileno(self) -> int:
        return self._event

    def ended(self) -> Ending | None:
        """Raises JudgeError(NODE_LOST): a machine is gone, which is nobody's fault here."""
        for node in self._nodes:
            node.check()
        found = self.said()
        return _ending(found) if found else None

    def stop(self) -> Ending:
        """All that can be reached have ended when it returns, or raises for one that cannot."""
        before = self.said()
        self._loop.run(self._stop())
        return _ending(before or self.said())

    async def _stop(self) -> None:
        await every(*(_stopped(node) for node in self._nodes))

    def said(self) -> list[Ended]:
        return [node.ended for node in self._nodes if node.ended is not None]

    def log(self) -> str:
        return "".join(
            f"--- {node.address}\n{node.ended.log}\n"
            for node in self._nodes
            if node.ended is not None
        )


async def _stopped(node: Node) -> None:
    """Wait until nothing is left there. Raises JudgeError(NODE_LOST)."""
    if node.ended is None:
        await node.tell(Stop())
    until = time.monotonic() + STOP_SECONDS
    while node.ended is None:
        node.check()
        if time.monotonic() > until:
            raise JudgeError(
                Code.NODE_LOST, f"{node.address} does not say that its sandbox has ended"
            )
        await asyncio.sleep(0.01)
    node.check()


def _ending(found: Sequence[Ended]) -> Ending:
    """Of several the one that says most: a failure, then a limit, then an exit, then our own word."""
    for each in found:
        if each.left:
            raise NotEndedError(each.detail)
        if not each.reason:
            raise JudgeError(Code.INTERNAL, each.detail)
    order = {EndReason.EXITED: 1, EndReason.STOPPED: 2}
    first = min(found, key=lambda each: order.get(EndReason(each.reason), 0))
    return Ending(EndReason(first.reason), first.exit_status, first.detail)


class LaunchOnNodes:
    """One launch on all machines; `harness.timed.launch.Launch` says what each does.

    Args:
        ranks: on each machine.
    """

    def __init__(
        self,
        loop: Loop,
        nodes: Sequence[Node],
        running: RunningNodes,
        hparams: Hparams,
        ranks: int,
        workspace: Workspace,
    ) -> None:
        self.running = running
        self._loop = loop
        self._nodes = tuple(nodes)
        self._hparams = hparams
        self._ranks = ranks
        self._workspace = workspace
        self._offsets: list[Offset] = []

    def put(self, name: str, data: bytes) -> None:
        """Also into the judge's own inbox, where whoever keeps the evaluation finds it."""
        write_readable(self._workspace.inbox / name, data)
        self._loop.run(self._put(name, data, held=False))

    def hold(self, name: str, challenge: Challenge) -> None:
        path = self._workspace.private / name
        challenge.write(path)
        self._loop.run(self._put(name, path.read_bytes(), held=True))
        self._offsets = self._loop.run(self._compare_clocks())

    async def _put(self, name: str, data: bytes, *, held: bool) -> None:
        await every(*(self._put_to(node, name, data, held) for node in self._nodes))

    async def _put_to(self, node: Node, name: str, data: bytes, held: bool) -> None:
        for start in range(0, max(1, len(data)), PORTION):
            last = start + PORTION >= len(data)
            await node.tell(Put(name, data[start : start + PORTION], held, last))
        await node.answer(Kept)

    async def _compare_clocks(self) -> list[Offset]:
        return await every(*(node.offset() for node in self._nodes))

    def release(self, name: str) -> None:
        """What ranks are told next goes the same way, behind this word."""
        self._loop.run(self._release(name))

    async def _release(self, name: str) -> None:
        await every(*(node.tell(Release(name)) for node in self._nodes))

    def delays(self, released: float, committed: Sequence[float]) -> tuple[NodeDelay, ...]:
        return self._loop.run(self._delays(released, committed))

    async def _delays(self, released: float, committed: Sequence[float]) -> tuple[NodeDelay, ...]:
        """A clock that runs faster by some millionths is compared again at the end."""
        after = await self._compare_clocks()
        found = []
        for node, begin, end in zip(self._nodes, self._offsets, after, strict=True):
            answer = await node.answer(Released)
            last = max(node.ranks, key=lambda rank: committed[rank])
            found.append(
                NodeDelay(
                    node=node.address,
                    release=answer.at * 1e-9 - begin.seconds - released,
                    commitment=committed[last] - (node.ranks[last].said_at - end.seconds),
                    uncertainty=max(begin.uncertainty, end.uncertainty),
                )
            )
        return tuple(found)

    def others(self) -> float:
        return max((said.others for said in self.running.said()), default=0.0)

    @property
    def excuses(self) -> bool:
        """The judge may be on one of the machines, where what it does for the ranks is nobody else's."""
        return False

    def room(self) -> int | None:
        rooms = [said.room for said in self.running.said() if said.room is not None]
        return min(rooms, default=None)

    def collect(self) -> None:
        """One machine after the other, over the network's speed."""
        self._loop.run(self._collect())

    async def _collect(self) -> None:
        for index, node in enumerate(self._nodes):
            ranks = range(index * self._ranks, (index + 1) * self._ranks)
            most = self._hparams.limits.outbox_bytes
            receiving = Receiving(self._workspace.outbox, ranks, most)
            async for word in node.opened():
                receiving.take(word)
