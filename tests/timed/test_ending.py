"""How a sandbox ends decides nothing about what the submission did before, and is never a free retry."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.errors import Code, JudgeError, SubmissionError
from harness.phases import Phases
from harness.sandbox import Ending, EndReason, NotEndedError
from harness.timed.ending import ended_after
from harness.timed.excuses import busy, disk_full
from harness.timed.launch import Launch, room_of
from harness.timed.observed import Observed
from harness.timed.session import Session

MINE = SubmissionError(Code.TRAINING_FAILED, "mine")
STUCK = NotEndedError("processes [7] of the sandbox cannot be killed")
OURS = JudgeError(Code.INTERNAL, "the supervisor failed")


class FakeRunning:
    def __init__(self, failure: JudgeError | None, reason: EndReason) -> None:
        self.failure = failure
        self.reason = reason
        self.stopped = 0

    def stop(self) -> Ending:
        self.stopped += 1
        if self.failure is not None:
            raise self.failure
        return Ending(self.reason, None, "as the supervisor says")

    def log(self) -> str:
        return "what it printed"


class FakeLaunch:
    """Its sandbox is a fake; what others had of the machine, and the disk, is told as it is set."""

    excuses = True

    def __init__(self, running: FakeRunning) -> None:
        self.running = running

    def others(self) -> float:
        return 0.9

    def room(self) -> int:
        return 60 * MIB


class FakeSession:
    def __init__(self, handed_over: bool) -> None:
        self.handed_over = handed_over


@contextmanager
def ending(
    failure: JudgeError | None = None,
    *,
    handed_over: bool = True,
    reason: EndReason = EndReason.STOPPED,
) -> Iterator[tuple[FakeRunning, Observed]]:
    running, observed = FakeRunning(failure, reason), Observed()
    phases = Phases(lambda name, detail: None)
    session = cast(Session, FakeSession(handed_over))
    with ended_after(cast(Launch, FakeLaunch(running)), session, phases, observed):
        yield running, observed


def test_a_sandbox_is_ended_once_and_its_log_kept() -> None:
    with ending() as (running, observed):
        assert running.stopped == 0
    assert running.stopped == 1
    assert observed.log == ["what it printed"]
    assert not observed.not_ended


@pytest.mark.parametrize("failure", [None, STUCK, OURS])
def test_what_the_submission_did_is_told_however_its_sandbox_ends(
    failure: JudgeError | None,
) -> None:
    with pytest.raises(SubmissionError) as caught, ending(failure) as (running, observed):
        raise MINE
    assert caught.value is MINE
    assert running.stopped == 1
    said = [] if failure is None else [f"the judge: {failure.message}"]
    assert observed.log == ["what it printed", *said]


@pytest.mark.parametrize(("failure", "left"), [(None, False), (STUCK, True), (OURS, False)])
def test_what_could_not_be_ended_is_known_whatever_the_submission_did(
    failure: JudgeError | None, left: bool
) -> None:
    with pytest.raises(SubmissionError), ending(failure) as (_, observed):
        raise MINE
    assert observed.not_ended is left


def test_a_sandbox_that_does_not_end_is_the_submissions_failure_from_the_hand_over_on() -> None:
    with pytest.raises(SubmissionError, match="cannot be killed") as caught, ending(STUCK):
        pass
    assert caught.value.code is Code.NOT_ENDED


def test_before_the_hand_over_it_is_ours() -> None:
    with pytest.raises(NotEndedError), ending(STUCK, handed_over=False):
        pass


def test_a_supervisor_that_fails_is_ours() -> None:
    with pytest.raises(JudgeError, match="supervisor failed"), ending(OURS):
        pass


GONE = SubmissionError(Code.RANK_EXITED, "rank 0 ended or was killed before its work was done")


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (GONE, EndReason.OUTBOX, Code.OUTBOX_LIMIT),
        (GONE, EndReason.MEMORY, Code.MEMORY_LIMIT),
        (GONE, EndReason.STOPPED, Code.RANK_EXITED),
        (GONE, EndReason.EXITED, Code.RANK_EXITED),
        (MINE, EndReason.OUTBOX, Code.TRAINING_FAILED),
    ],
)
def test_a_rank_that_was_ended_for_a_limit_is_told_so_however_long_the_ending_takes(
    error: SubmissionError, reason: EndReason, code: Code
) -> None:
    with pytest.raises(SubmissionError) as caught, ending(reason=reason):
        raise error
    assert caught.value.code is code
    if code is not error.code:
        assert caught.value.message == "as the supervisor says"


LATE = SubmissionError(Code.TIMED_OUT, "training: rank 1 did not finish within 60 seconds")


@pytest.mark.parametrize(
    ("error", "others", "ours"),
    [
        (LATE, 0.26, True),
        (LATE, 0.25, False),
        (LATE, 0.0, False),
        (LATE, None, False),
        (MINE, 0.9, False),
    ],
)
def test_what_took_too_long_while_others_had_the_machine_is_ours(
    error: SubmissionError, others: float | None, ours: bool
) -> None:
    found = busy(error, others)
    assert (found is not None) == ours
    if found is not None:
        assert found.code is Code.MACHINE_BUSY
        assert LATE.message in found.message and "26%" in found.message


UNWRITTEN = SubmissionError(
    Code.OPENING_FAILED, "rank 0: OSError: No space left on device", "trace"
)
MIB = 2**20


@pytest.mark.parametrize(
    ("error", "free", "written", "ours"),
    [
        (UNWRITTEN, 60 * MIB, 39 * MIB, True),
        (UNWRITTEN, 60 * MIB, 40 * MIB, False),
        (UNWRITTEN, 0, 100 * MIB, False),
        (MINE, 0, 0, False),
    ],
    ids=["others have it", "all is there", "it wrote all itself", "something else failed"],
)
def test_what_could_not_be_written_because_others_filled_the_disk_is_ours(
    error: SubmissionError,
    free: int,
    written: int,
    ours: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (tmp_path / "state").open("wb") as file:
        file.truncate(written)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    found = disk_full(error, room_of(tmp_path), 100 * MIB)
    assert (found is not None) == ours
    if found is not None:
        assert found.code is Code.DISK_FULL
        assert "No space left" in found.message and "99 MiB of the 100" in found.message


def test_an_outbox_that_cannot_be_measured_excuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path.joinpath(*["d"] * 20)
    deep.mkdir(parents=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert disk_full(UNWRITTEN, room_of(tmp_path), 100 * MIB) is None


def test_what_others_had_is_told_whatever_happened() -> None:
    with pytest.raises(SubmissionError), ending() as (_, observed):
        raise MINE
    assert observed.others == 0.9 and observed.room == 60 * MIB


def test_our_own_failure_stays_ours_and_the_sandbox_is_ended_all_the_same() -> None:
    with pytest.raises(KeyboardInterrupt), ending() as (running, _):
        raise KeyboardInterrupt
    assert running.stopped == 1
