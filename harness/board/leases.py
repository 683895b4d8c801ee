"""What workers of one process say of themselves, in one transaction for all of them.

A worker says every few seconds that it lives and how far its judge is, and a dispatcher has a worker for
each node: a transaction for each word would be a thousand commits where one will do. So whoever speaks
while another one writes has it written with the next *beat*. A lone worker's word is written at once.
"""

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, bindparam, insert, select, update

from harness.board.queue import LEASE_SECONDS, LeaseLostError, Taken, WorkerId
from harness.board.states import EvaluationState
from harness.board.store import Store
from harness.board.tables import Evaluation, Worker
from harness.board.writer import Writer

#: From one beat to the next, at least: whoever speaks meanwhile waits for it.
BEAT_SECONDS: Final = 0.5
#: In one statement; databases limit how many parameters that has.
AT_ONCE: Final = 1_000

_EVALUATIONS: Final = select(
    Evaluation.id, Evaluation.state, Evaluation.worker, Evaluation.starts
).where(Evaluation.id.in_(bindparam("which", expanding=True)))
_RENEW: Final = (
    update(Evaluation)
    .where(Evaluation.id == bindparam("which"))
    .values(lease_until=bindparam("until"), progress=bindparam("said"))
)
_KNOWN: Final = select(Worker.name).where(Worker.name.in_(bindparam("which", expanding=True)))
_VALUES: Final[dict[Any, Any]] = {
    Worker.machine: bindparam("on"), Worker.seen_at: bindparam("at"), Worker.doing: bindparam("does"),
}  # fmt: skip
_SEEN: Final = update(Worker).where(Worker.name == bindparam("who")).values(_VALUES)
_NEW: Final = insert(Worker).values({Worker.name: bindparam("who"), **_VALUES})


@dataclass(eq=False)
class _Word:
    """Of one worker: that it lives.

    Attributes:
        taken: what it judges, and how far that is by its own words; None: nothing.
        over: set once it is known what came of it.
        lost: what became of the evaluation, where it is this worker's no more; else empty.
        failed: what became of the whole transaction.
    """

    worker: WorkerId
    doing: str
    taken: Taken | None = None
    progress: str = ""
    over: bool = False
    lost: str = ""
    failed: BaseException | None = None


@dataclass
class Leases:
    """Args:
    store: where they are.
    """

    store: Store
    _words: deque[_Word] = field(default_factory=deque)
    _beating: threading.Lock = field(default_factory=threading.Lock)
    _last: float = -BEAT_SECONDS

    def renew(self, taken: Taken, progress: str) -> None:
        """Say that its worker lives, and the lines that the judge has printed.

        Raises LeaseLostError; JudgeError where the store fails.
        """
        doing = f"evaluation {taken.evaluation}"
        lost = self._say(_Word(taken.worker, doing, taken, progress)).lost
        if lost:
            raise LeaseLostError(f"{doing} is {lost} by now")

    def seen(self, worker: WorkerId, doing: str) -> None:
        """A worker that waits is alive too. Raises JudgeError where the store fails."""
        self._say(_Word(worker, doing))

    def _say(self, word: _Word) -> _Word:
        self._words.append(word)
        with self._beating:
            if not word.over:
                time.sleep(max(0.0, self._last + BEAT_SECONDS - time.monotonic()))
                self._beat([self._words.popleft() for _ in range(len(self._words))])
        if word.failed is not None:
            raise word.failed
        return word

    def _beat(self, words: list[_Word]) -> None:
        try:
            with self.store.write() as writer:
                _write_down(writer, words)
        except BaseException as error:
            for word in words:
                word.failed = error
        finally:
            self._last = time.monotonic()
            for word in words:
                word.over = True


def _write_down(writer: Writer, words: Collection[_Word]) -> None:
    """In statements for all of them, past the mapped rows: of those there would be thousands."""
    connection = writer.session.connection()
    judging = [(word, word.taken) for word in words if word.taken is not None]
    found = {
        row.id: row for row in _rows(writer, _EVALUATIONS, {of.evaluation for _, of in judging})
    }
    renewed = []
    for word, taken in judging:
        row = found[taken.evaluation]
        mine = (EvaluationState.RUNNING, taken.worker.name, taken.start)
        if (row.state, row.worker, row.starts) != mine:
            word.lost = row.state
            continue
        until = writer.now + LEASE_SECONDS
        renewed.append({"which": taken.evaluation, "until": until, "said": word.progress})
    if renewed:
        connection.execute(_RENEW, renewed)
    heard = {word.worker.name: word for word in words if not word.lost}
    known = {row.name for row in _rows(writer, _KNOWN, heard)}
    for statement, names in ((_SEEN, heard.keys() & known), (_NEW, heard.keys() - known)):
        if names:
            connection.execute(statement, [_row(heard[name], writer.now) for name in sorted(names)])


def _row(word: _Word, now: float) -> dict[str, Any]:
    return {"who": word.worker.name, "on": word.worker.machine, "at": now, "does": word.doing}


def _rows(writer: Writer, statement: Any, which: Iterable[Any]) -> Iterator[Row[Any]]:
    """Of all of these, whose keys are as many as may be."""
    keys = sorted(which)
    for start in range(0, len(keys), AT_ONCE):
        part = {"which": keys[start : start + AT_ONCE]}
        yield from writer.session.connection().execute(statement, part)
