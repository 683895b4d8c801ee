"""How a sandbox ends. It decides nothing about what was done before, and is never a free retry."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harness.errors import Code, JudgeError, SubmissionError
from harness.phases import PhaseName, Phases
from harness.sandbox import Ending, NotEndedError
from harness.timed.launch import Launch
from harness.timed.observed import Observed
from harness.timed.session import LIMIT_CODES, Session


@contextmanager
def ended_after(
    launch: Launch, session: Session, phases: Phases, observed: Observed
) -> Iterator[None]:
    """End the sandbox, whatever happened inside.

    Raises SubmissionError(NOT_ENDED) if that cannot be done from the hand-over on; but what the
    submission has done before comes first, however slowly it ends.
    """
    failed: SubmissionError | None = None
    try:
        yield
    except SubmissionError as error:
        failed = error
    except BaseException as error:
        with suppress(JudgeError):
            _end(launch, phases, observed)
        if isinstance(error, NotEndedError):  # it was noticed while the ranks were waited for
            raise _not_ended(error, session) from None
        raise
    try:
        ending = _end(launch, phases, observed)
    except JudgeError as stuck:
        if stuck.code is Code.NODE_LOST:
            raise  # whatever its ranks, or those of other machines, did meanwhile
        failed = failed or _not_ended(stuck, session)
    else:
        failed = _by_a_limit(failed, ending)
    if failed is not None:
        raise failed


def _end(launch: Launch, phases: Phases, observed: Observed) -> Ending:
    """End it, and note what was seen of it. Raises JudgeError: it cannot be ended, and the log says so."""
    phases.enter(PhaseName.STOP)
    said = []
    try:
        ending = launch.running.stop()
        observed.others, observed.excuses = launch.others(), launch.excuses
        observed.room = launch.room()
        return ending
    except JudgeError as stuck:
        observed.not_ended = isinstance(stuck, NotEndedError)
        said = [f"the judge: {stuck.message}"]
        raise
    finally:
        observed.log.extend((launch.running.log(), *said))


def _not_ended(stuck: JudgeError, session: Session) -> SubmissionError:
    """Whose failure that is. Raises it again where it is ours."""
    if not session.handed_over or not isinstance(stuck, NotEndedError):
        raise stuck
    return SubmissionError(
        Code.NOT_ENDED,
        f"{stuck.message}: nothing that it wrote can be read. End every process before inner_steps returns",
    )


def _by_a_limit(failed: SubmissionError | None, ending: Ending) -> SubmissionError | None:
    """Of a rank that is gone the limit it was ended for: that is told when nothing of the sandbox is left,
    which can take longer than the session listens.
    """
    if failed is None or failed.code is not Code.RANK_EXITED or ending.reason not in LIMIT_CODES:
        return failed
    return SubmissionError(LIMIT_CODES[ending.reason], ending.detail, failed.detail)
