"""Live parts: one look at the store a second, however many watch, and streams of what it showed."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from harness.board.history import HistoryLine, events_after
from harness.board.states import EvaluationState
from harness.board.store import Store, last_event_of
from harness.board.tables import Evaluation
from harness.protocol.text import printable
from harness.web.problems import RequestError

MAX_STREAMS: Final = 1_000
#: A stream ends after that; a browser comes back by itself, and one that is gone is not fed for ever.
STREAM_SECONDS: Final = 900.0
#: Without a word for so long, something between us and the reader would hang up.
SILENCE_SECONDS: Final = 15.0
EVENTS_AT_ONCE: Final = 500
STILL_HERE: Final = ": still here\n\n"


@dataclass(frozen=True)
class Snapshot:
    """What watchers are told of.

    Attributes:
        last_event: number of the newest event.
        progress: of evaluations that run, the last line of what the judge has printed.
    """

    last_event: int
    progress: dict[int, str]


class Live:
    """Args:
    store: what is looked at.
    seconds: between two looks.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._looking = asyncio.Lock()
        self._seen: tuple[float, Snapshot] | None = None
        self._streams = 0
        self._over = False

    def admit(self) -> None:
        """Raises RequestError: so many watch that one more would be too many."""
        if self._streams >= MAX_STREAMS:
            raise RequestError(
                503, "too_many_streams", "Too many are watching; load the page anew."
            )

    def end(self) -> None:
        """The server ends: so do all streams, at their next look."""
        self._over = True

    async def look(self) -> Snapshot:
        """What is there now, or was a moment ago."""
        async with self._looking:
            now = time.monotonic()
            if self._seen is None or now - self._seen[0] >= self._seconds:
                self._seen = (now, await run_in_threadpool(self._read))
            return self._seen[1]

    async def pages(self) -> AsyncGenerator[str]:
        """For pages: `changed` when anything happened, `progress` as the judge goes on."""
        last, progress = -1, dict[int, str]()
        async with aclosing(self._snapshots()) as snapshots:
            async for snapshot in snapshots:
                if snapshot is None:
                    yield STILL_HERE
                    continue
                if snapshot.last_event != last:
                    last = snapshot.last_event
                    yield _message("changed", str(last))
                for number, line in snapshot.progress.items():
                    if progress.get(number) != line:
                        yield _message("progress", json.dumps({"evaluation": number, "line": line}))
                progress = snapshot.progress

    async def events(self, after: int) -> AsyncGenerator[str]:
        """For programs: every event after that number, in order, none twice."""
        async with aclosing(self._snapshots()) as snapshots:
            async for snapshot in snapshots:
                if snapshot is None:
                    yield STILL_HERE
                    continue
                while snapshot.last_event > after:
                    lines = await run_in_threadpool(self._events, after)
                    for line in lines:
                        yield _message("event", line.model_dump_json(), line.id)
                    after = lines[-1].id if lines else after
                    if len(lines) < EVENTS_AT_ONCE:
                        # Those that are not for everybody are passed over.
                        after = max(after, snapshot.last_event)

    async def _snapshots(self) -> AsyncGenerator[Snapshot | None]:
        """Each that differs from the one before; None now and then where nothing does."""
        self._streams += 1
        try:
            end = time.monotonic() + STREAM_SECONDS
            last, said = None, time.monotonic()
            while time.monotonic() < end and not self._over:
                snapshot = await self.look()
                if snapshot != last:
                    last, said = snapshot, time.monotonic()
                    yield snapshot
                elif time.monotonic() - said > SILENCE_SECONDS:
                    said = time.monotonic()
                    yield None
                await asyncio.sleep(self._seconds)
        finally:
            self._streams -= 1

    def _read(self) -> Snapshot:
        with self._store.read() as session:
            running = session.execute(
                select(Evaluation.id, Evaluation.progress).where(
                    Evaluation.state == EvaluationState.RUNNING
                )
            )
            progress = {number: last_line(text) for number, text in running}
            return Snapshot(last_event_of(session), progress)

    def _events(self, after: int) -> tuple[HistoryLine, ...]:
        with self._store.read() as session:
            return events_after(session, after, EVENTS_AT_ONCE)


def last_line(progress: str) -> str:
    """Of what the judge has printed, the newest line that says something."""
    lines = [line.strip() for line in printable(progress[-4_000:]).splitlines()]
    found = [line for line in lines if line]
    return found[-1].removeprefix("·").strip()[:200] if found else ""


def _message(kind: str, data: str, number: int | None = None) -> str:
    mark = "" if number is None else f"id: {number}\n"
    return f"event: {kind}\n{mark}data: {data}\n\n"
