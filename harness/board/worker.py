"""The worker: takes an evaluation, has it judged, writes down the result; again and again.

It holds two things while it judges: a lease in the store, which it renews, and the right to time on this
machine, which the judge inherits.
"""

import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from harness.benchmark.rules import Together
from harness.board import comparing
from harness.board.artefacts import Artefacts
from harness.board.contending import contend
from harness.board.filling import Filler, Wanted, open_worlds
from harness.board.judge_process import Judged, JudgeProcess, Order
from harness.board.leaderboard import Leaderboard
from harness.board.outcome import finish
from harness.board.patience import Found, Patience
from harness.board.queue import (
    HEARTBEAT_SECONDS,
    LeaseLostError,
    Taken,
    fail,
    give_back,
    gone,
    renew,
    seen,
    take,
    this_worker,
    waits,
)
from harness.board.store import Store
from harness.errors import Code, InputError, JudgeError
from harness.host.timing import MACHINE_LOCK, hold_machine
from harness.phases import OnProgress
from harness.protocol.text import one_line
from harness.result import EvaluationResult

IDLE_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.25
#: After a comparison that failed by our fault; it stays owed.
COMPARE_AGAIN_SECONDS: Final = 600.0
JUDGE: Final = (sys.executable, "-m", "harness.cli", "run")


@dataclass(frozen=True)
class Job:
    """How this worker judges.

    Attributes:
        hparams: the benchmark's file; only seasons of that very file are worked for.
        hparams_sha256: of that file.
        options: of `validator run`, such as ("--sandbox", "docker").
        once: end where nothing waits.
        artefacts: where evaluations are kept, so that they can be judged again; None keeps none.
        judge: the command that judges a file.
        lock: what whoever times on this machine holds.
        together: of the benchmark.
        bank: challenges that are trained on ahead while nothing waits; None: none are.
    """

    hparams: Path
    hparams_sha256: str
    options: tuple[str, ...] = ()
    once: bool = False
    artefacts: Artefacts | None = None
    judge: tuple[str, ...] = JUDGE
    lock: str = MACHINE_LOCK
    together: Together = field(default_factory=Together)
    bank: Wanted | None = None


class Stop:
    """Asked to end: first in good time, then at once.

    Args:
        grace_seconds: how long the evaluation at hand may go on after the first request.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace = grace_seconds
        self._deadline: float | None = None

    @property
    def requested(self) -> bool:
        return self._deadline is not None

    @property
    def due(self) -> bool:
        """Whether the evaluation at hand has to be given back now."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def request(self) -> None:
        """The second request is due at once."""
        now = time.monotonic()
        self._deadline = now + self._grace if self._deadline is None else now


def work(store: Store, job: Job, stop: Stop, progress: OnProgress) -> int:
    """Judge what waits until `stop` says so; gives the number of evaluations that were finished.

    Raises, after what it had was given back:
        InputError: this machine cannot judge this benchmark.
        JudgeError: it cannot run a judge at all, as where its disk is full, or the store failed for long.
    """
    worker = Working(store, job, stop, progress)
    reported = 0.0
    try:
        while not stop.requested:
            if worker.patience.insist(lambda: stop.requested or worker.did_something()):
                continue
            if job.once and not waits(store, worker.id, job.hparams_sha256):
                break
            if time.monotonic() - reported > HEARTBEAT_SECONDS:
                worker.patience.insist(lambda: seen(store, worker.id, "waiting"))
                reported = time.monotonic()
            _sleep(IDLE_SECONDS, lambda: stop.requested)
    finally:
        gone(store, worker.id)
    return worker.finished


class Working:
    """A worker at work.

    Attributes:
        id: how others know it.
        finished: evaluations that it brought to an end.
        patience: with the store.
    """

    def __init__(self, store: Store, job: Job, stop: Stop, progress: OnProgress) -> None:
        self._store, self._job, self._stop, self._progress = store, job, stop, progress
        self._leaderboard = Leaderboard(store)
        self._filler = Filler(job.bank, progress)
        self._compares_from = 0.0
        self._seen = 0.0
        self.id = this_worker()
        self.finished = 0
        self.patience = Patience(
            progress, lambda: _sleep(IDLE_SECONDS, lambda: stop.requested), lambda: stop.due
        )

    def did_something(self) -> bool:
        """A comparison that is owed, else the next evaluation, else what a bank lacks; False: nothing.

        Raises InputError, JudgeError: this machine cannot judge this benchmark, or nothing at all.
        """
        held = hold_machine(self._job.lock)
        if held is None:
            return False
        with held:
            if time.monotonic() >= self._compares_from:
                claimed = comparing.claim(
                    self._store, self._leaderboard, self.id, self._job.hparams_sha256
                )
                if claimed is not None:
                    self._compare(claimed, held)
                    return True
            taken = take(self._store, self.id, self._job.hparams_sha256)
            if taken is not None:
                self._evaluate(taken, held)
                return True
            return not self._job.once and self._filler.fill(self._worlds, held, self._needed)

    def _worlds(self) -> list[int]:
        return open_worlds(self._store, self._job.hparams_sha256)

    def _needed(self) -> bool:
        """Whether this machine has something better to do than to fill a bank."""
        if self._stop.requested or waits(self._store, self.id, self._job.hparams_sha256):
            return True
        if time.monotonic() - self._seen > HEARTBEAT_SECONDS:
            seen(self._store, self.id, "waiting; filling the bank")
            self._seen = time.monotonic()
        owed = comparing.owed(self._store, self._leaderboard, self._job.hparams_sha256)
        return owed and time.monotonic() >= self._compares_from

    def _evaluate(self, taken: Taken, held: socket.socket) -> None:
        """One evaluation, to its end or given back."""
        self._progress(f"evaluation {taken.evaluation}: {taken.file_name} of {taken.author}")
        keep = self._keeping(lambda kept: kept.place(taken.evaluation))
        options = ("--keep", str(keep)) if keep is not None else ()
        started = time.monotonic()
        try:
            judged = self._judge(
                (taken.file_name, taken.source),
                taken.world_size,
                options,
                lambda said: renew(self._store, taken, said),
                held,
            )
            if judged.result is not None:
                self._finish(taken, judged.result, time.monotonic() - started)
                ended = f"{judged.result.verdict} ({judged.result.code})"
            else:
                # Only a judge that broke down counts as a try: neither our end nor a wrong machine does.
                no_try = judged.stopped or judged.status == InputError.exit_status
                (give_back if no_try else fail)(self._store, taken, judged.cause)
                ended = f"given back: {judged.cause}"
        except LeaseLostError as lost:
            # Another outcome stands; `rejudge` would take this one for it, by the evaluation's number.
            self._keeping(lambda kept: kept.remove(taken.evaluation))
            self._progress(f"{lost}; what was found is not kept")
            return
        except OSError as error:
            cause = f"its worker cannot run a judge: {error.strerror or type(error).__name__}"
            with suppress(LeaseLostError):
                self.patience.insist(lambda: give_back(self._store, taken, cause))
            raise _cannot_run(error) from error
        self._progress(f"evaluation {taken.evaluation}: {ended}")
        self._keeping(Artefacts.prune)
        judged.check_machine()

    def _keeping(self, step: Callable[[Artefacts], Found]) -> Found | None:
        """A step with what is kept, if anything is; its failure is told, as it is worth no worker."""
        if self._job.artefacts is None:
            return None
        try:
            return step(self._job.artefacts)
        except OSError as error:
            self._progress(f"evaluations cannot be kept: {error}")
            return None

    def _finish(self, taken: Taken, result: EvaluationResult, seconds: float) -> None:
        """It took minutes of a machine: write it down even if the store fails meanwhile."""
        self.patience.insist(lambda: finish(self._store, taken, result, seconds))
        self.finished += 1

    def _compare(self, claimed: comparing.Claimed, held: socket.socket) -> None:
        """A paired test; our own failure puts further ones off for a while."""
        judge = partial(self._judge, held=held)
        try:
            together = self._job.together
            if not contend(self._store, claimed, together, judge, self.patience, self._progress):
                self._compares_from = time.monotonic() + COMPARE_AGAIN_SECONDS
        except OSError as error:
            raise _cannot_run(error) from error

    def _judge(
        self,
        file: tuple[str, bytes],
        world_size: int,
        options: tuple[str, ...],
        renew_lease: Callable[[str], None],
        held: socket.socket,
    ) -> Judged:
        """Run a judge to its end, or until we have to stop.

        Raises LeaseLostError, after it has ended; OSError where none can be run here.
        """
        common = ("--hparams", str(self._job.hparams), "--world", str(world_size))
        order = Order(self._job.judge, *file, (*common, *self._job.options, *options))
        with tempfile.TemporaryDirectory(prefix="trainjudge-worker-") as folder:
            with JudgeProcess(order, Path(folder), [held]) as judge:
                renewed, shown = 0.0, ""
                while judge.status is None and not self._stop.due:
                    said = judge.said()
                    if said != shown or time.monotonic() - renewed > HEARTBEAT_SECONDS:
                        self.patience.insist(partial(renew_lease, said))
                        renewed, shown = time.monotonic(), said
                    _sleep(LOOK_SECONDS, lambda: self._stop.due or judge.status is not None)
                judge.end()
            last = (judge.said().strip().splitlines() or ["it said nothing"])[-1]
            return Judged(judge.result(), judge.status, one_line(last), self._stop.due)


def _cannot_run(error: OSError) -> JudgeError:
    """No judge can be run here, nor the next one: a worker that took more would only take their turns."""
    return JudgeError(
        Code.INTERNAL,
        f"this machine cannot run a judge: {error}. Is the disk of {tempfile.gettempdir()} full, is there "
        "memory for another process? Nothing was judged, and nothing is held against anybody",
    )


def _sleep(seconds: float, until: Callable[[], bool]) -> None:
    """A handler of signals only asks, and the loop has to see it soon."""
    end = time.monotonic() + seconds
    while not until() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
