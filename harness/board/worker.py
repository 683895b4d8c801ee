"""The worker: takes an evaluation, has it judged, writes down the result; again and again.

It holds two things while it judges: a lease in the store, which it renews, and the right to time on a
machine. That is this one (`here`), or a node of a fleet.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self

from harness.benchmark.rules import Together
from harness.board import comparing
from harness.board.artefacts import Artefacts
from harness.board.contending import contend
from harness.board.filling import Filler, Wanted, open_worlds
from harness.board.here import ThisMachine
from harness.board.judge_process import Judged
from harness.board.judging import Asked, Held, Place
from harness.board.leaderboard import Leaderboard
from harness.board.leases import Leases
from harness.board.patience import Found, Patience
from harness.board.queue import (
    HEARTBEAT_SECONDS,
    LeaseLostError,
    Taken,
    WorkerId,
    give_back,
    gone,
    take,
    this_worker,
    waits,
)
from harness.board.settling import settle
from harness.board.stopping import Ending, rest
from harness.board.store import Store
from harness.errors import Code, JudgeError
from harness.host.timing import MACHINE_LOCK
from harness.phases import OnProgress

IDLE_SECONDS: Final = 2.0
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
        seasons: numbers of those that are worked for; None: all of the benchmark.
        stirs: whether anything may be there for those seasons; as of a moment ago, and for many workers.
        first: done before anything else with the right to time; says whether it did something.
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
    seasons: Callable[[], frozenset[int]] | None = None
    stirs: Callable[[frozenset[int] | None], bool] = lambda seasons: True
    first: Callable[[Held], bool] | None = None

    def wanted(self) -> frozenset[int] | None:
        """The seasons, as `queue.take` wants them."""
        return None if self.seasons is None else self.seasons()


def work(store: Store, job: Job, stop: Ending, progress: OnProgress) -> int:
    """Judge here what waits until `stop` says so; gives the number of evaluations that were finished.

    Raises, after what it had was given back:
        InputError: this machine cannot judge this benchmark.
        JudgeError: it cannot run a judge at all, as where its disk is full, or the store failed for long.
    """
    filler = Filler(job.bank, progress)
    here = ThisMachine(job.judge, job.hparams, job.options, job.lock, filler)
    return Working(store, job, stop, progress, here, this_worker()).work()


@dataclass(frozen=True)
class Shared:
    """What workers of one process have in common: so each is asked, or written, once for all of them."""

    leases: Leases
    leaderboard: Leaderboard

    @classmethod
    def of(cls, store: Store) -> Self:
        return cls(Leases(store), Leaderboard(store))


class Working:
    """A worker at work.

    Args:
        store, job: what it works for.
        stop: tells it to end.
        progress: told how it goes.
        place: where it has files judged.
        worker: how others know it.
        shared: what it has in common with other workers of this process; None: there are none.

    Attributes:
        finished: evaluations that it brought to an end.
        patience: with the store.
    """

    def __init__(
        self,
        store: Store,
        job: Job,
        stop: Ending,
        progress: OnProgress,
        place: Place,
        worker: WorkerId,
        shared: Shared | None = None,
    ) -> None:
        self._store, self._job, self._stop, self._progress = store, job, stop, progress
        self._place, self.id = place, worker
        shared = shared or Shared.of(store)
        self._leases, self._leaderboard = shared.leases, shared.leaderboard
        self._compares_from = 0.0
        self._seen = 0.0
        self.finished = 0
        self.patience = Patience(
            progress, lambda: rest(IDLE_SECONDS, lambda: stop.requested), lambda: stop.due
        )

    def work(self) -> int:
        """Until it has to end, or once nothing waits; see the function `work`."""
        reported = 0.0
        try:
            while not self._stop.requested:
                if self.patience.insist(lambda: self._stop.requested or self.did_something()):
                    continue
                if self._job.once and not self._waits():
                    break
                if time.monotonic() - reported > HEARTBEAT_SECONDS:
                    self.patience.insist(lambda: self._leases.seen(self.id, "waiting"))
                    reported = time.monotonic()
                rest(IDLE_SECONDS, lambda: self._stop.requested)
        finally:
            gone(self._store, self.id)
        return self.finished

    def did_something(self) -> bool:
        """A comparison that is owed, else the next evaluation, else what a bank lacks; False: nothing.

        Raises InputError, JudgeError: this machine cannot judge this benchmark, or nothing at all.
        """
        holding = self._place.hold()
        if holding is None:
            return False
        with holding as held:
            if self._did_first(held):
                return True
            seasons = self._job.wanted()
            if not self._job.stirs(seasons):
                return False
            if time.monotonic() >= self._compares_from:
                claimed = comparing.claim(
                    self._store, self._leaderboard, self.id, self._job.hparams_sha256, seasons
                )
                if claimed is not None:
                    self._compare(claimed, held)
                    return True
            taken = take(self._store, self.id, self._job.hparams_sha256, seasons)
            if taken is not None:
                self._evaluate(taken, held)
                return True
            return not self._job.once and held.use_idle_time(self._worlds, self._needed)

    def _did_first(self, held: Held) -> bool:
        try:
            return self._job.first is not None and self._job.first(held)
        except OSError as error:
            raise _cannot_run(error) from error

    def _waits(self) -> bool:
        return waits(self._store, self.id, self._job.hparams_sha256, self._job.wanted())

    def _worlds(self) -> list[int]:
        return open_worlds(self._store, self._job.hparams_sha256)

    def _needed(self) -> bool:
        """Whether this machine has something better to do than to fill a bank."""
        if self._stop.requested or self._waits():
            return True
        if time.monotonic() - self._seen > HEARTBEAT_SECONDS:
            self._leases.seen(self.id, "waiting; filling the bank")
            self._seen = time.monotonic()
        owed = comparing.owed(self._store, self._leaderboard, self._job.hparams_sha256)
        return owed and time.monotonic() >= self._compares_from

    def _evaluate(self, taken: Taken, held: Held) -> None:
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
                lambda said: self._leases.renew(taken, said),
                held,
            )
            seconds = time.monotonic() - started
            ended = self.patience.insist(lambda: settle(self._store, taken, judged, seconds))
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
        self.finished += judged.result is not None
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

    def _compare(self, claimed: comparing.Claimed, held: Held) -> None:
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
        held: Held,
    ) -> Judged:
        """Have a file judged to its end, or until we have to stop.

        Raises LeaseLostError, after the judge has ended; OSError where none can be run.
        """
        asked = Asked(*file, world_size, options)
        return held.judge(
            asked,
            lambda said: self.patience.insist(lambda: renew_lease(said)),
            lambda: self._stop.due,
        )


def _cannot_run(error: OSError) -> JudgeError:
    """No judge can be run here, nor the next one: a worker that took more would only take their turns."""
    return JudgeError(
        Code.INTERNAL,
        f"this machine cannot run a judge: {error}. Is the disk of {tempfile.gettempdir()} full, is there "
        "memory for another process? Nothing was judged, and nothing is held against anybody",
    )
