"""Why ranks broke off: of all that goes wrong at once, what was first, and whose fault it is."""

import threading
import time
from pathlib import Path

import pytest

from harness.errors import Code, JudgeError, SubmissionError
from harness.protocol.messages import (
    Commitment,
    Failed,
    Loaded,
    Ready,
    Stage,
)
from harness.protocol.wire import frame
from harness.sandbox import EndReason
from harness.timed import session as session_module
from harness.timed.session import Session
from tests.timed.scripted_ranks import (
    BROKEN_PIPE,
    REAL_GRACE,
    WAIT,
    CountingSelector,
    FakeSandbox,
    Script,
    body_frame,
    connect,
    failed,
    large_commitment,
    ranks,
    refusal,
    rejected,
    says,
    session,
    silent,
    watch,
)

pytest_plugins = ("tests.timed.scripted_ranks",)
pytestmark = pytest.mark.usefixtures("short_grace")

# --- the first cause ------------------------------------------------------------------------------


def test_the_first_cause_is_sought_for_the_second_that_the_protocol_promises() -> None:
    assert REAL_GRACE == 1.0


def test_a_rank_that_hangs_up_ends_the_evaluation_at_once(tmp_path: Path) -> None:
    begin = time.monotonic()
    error = rejected(tmp_path, silent, lambda link: None, seconds=60)
    assert error.code is Code.RANK_EXITED
    assert error.message == "rank 1 ended or was killed before its work was done"
    assert time.monotonic() - begin < 10


def test_an_exception_on_one_rank_does_not_wait_for_the_others(tmp_path: Path) -> None:
    mine = Failed(stage=Stage.TRAINING, message="ValueError: mine", detail="Traceback ...")
    error = rejected(tmp_path, silent, says(frame(mine)), seconds=60)
    assert (error.code, error.detail) == (Code.TRAINING_FAILED, "Traceback ...")
    assert error.message == "rank 1: ValueError: mine"


@pytest.mark.parametrize(
    ("stage", "code"),
    [
        (Stage.LOADING, Code.WORKER_FAILED),
        (Stage.IMPORT, Code.IMPORT_FAILED),
        (Stage.SETUP, Code.SETUP_FAILED),
        (Stage.WARMUP, Code.WARMUP_FAILED),
        (Stage.TRAINING, Code.TRAINING_FAILED),
        (Stage.RESULT, Code.RESULT_INVALID),
        (Stage.OPENING, Code.OPENING_FAILED),
    ],
)
def test_the_code_of_an_exception_is_that_of_its_stage(
    tmp_path: Path, stage: Stage, code: Code
) -> None:
    with ranks(tmp_path, failed("mine", stage)) as (judge, _):
        assert refusal(judge).code is code


@pytest.mark.parametrize(("first", "later"), [(0, 1), (1, 0)])
def test_of_several_exceptions_the_earliest_is_the_cause(
    tmp_path: Path, first: int, later: int
) -> None:
    with ranks(tmp_path, None, None) as (judge, links):
        links[first].sendall(frame(failed("the cause")))
        told = frame(BROKEN_PIPE)
        watch(judge, FakeSandbox(when_asked=lambda: links[later].sendall(told)))
        error = refusal(judge)
    assert error.message == f"rank {first}: the cause"


@pytest.mark.parametrize(("first", "later"), [(0, 1), (1, 0)])
def test_of_several_dead_ranks_the_first_is_named(tmp_path: Path, first: int, later: int) -> None:
    with ranks(tmp_path, None, None) as (judge, links):
        links[first].close()
        watch(judge, FakeSandbox(when_asked=links[later].close))
        error = refusal(judge)
    assert error.message == f"rank {first} ended or was killed before its work was done"


def test_a_rank_that_reports_its_exception_and_ends_is_not_taken_for_a_dead_one(
    tmp_path: Path,
) -> None:
    with ranks(tmp_path, failed("mine"), None) as (judge, links):
        links[0].close()
        assert refusal(judge).code is Code.TRAINING_FAILED


def test_a_dead_rank_is_the_cause_of_the_exceptions_in_the_others(tmp_path: Path) -> None:
    with ranks(tmp_path, BROKEN_PIPE, None) as (judge, links):
        watch(judge, FakeSandbox(when_asked=links[1].close))
        error = refusal(judge)
    assert error.code is Code.RANK_EXITED
    assert "rank 1" in error.message


def test_a_rank_that_dies_as_soon_as_it_has_connected_is_the_cause_too(tmp_path: Path) -> None:
    with Session(tmp_path, 2, lambda stage: None) as judge, connect(tmp_path, 0, BROKEN_PIPE):
        judge.handed_over = True
        watch(judge, FakeSandbox(when_asked=lambda: connect(tmp_path, 1).close()))
        error = refusal(judge)
    assert error.code is Code.RANK_EXITED
    assert "rank 1" in error.message


def test_the_exception_is_the_cause_where_the_others_say_nothing_wrong(tmp_path: Path) -> None:
    with ranks(tmp_path, None, failed("mine")) as (judge, links):
        watch(judge, FakeSandbox(when_asked=lambda: links[0].sendall(frame(Ready(run=0)))))
        error = refusal(judge)
    assert error.message == "rank 1: mine"


def test_a_commitment_longer_than_the_model_needs_is_refused(tmp_path: Path) -> None:
    body = frame(large_commitment())
    with ranks(tmp_path, Ready(run=0)) as (judge, (link,)):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        link.sendall(body)
        with pytest.raises(SubmissionError) as caught:
            judge.gather(Commitment, Stage.RESULT, WAIT, 0, len(body) - 5)
    assert caught.value.code is Code.BAD_MESSAGE
    assert f"a frame of {len(body) - 4} bytes where at most {len(body) - 5}" in caught.value.message


def test_a_commitment_as_long_as_the_model_needs_is_taken(tmp_path: Path) -> None:
    body = frame(large_commitment())
    with ranks(tmp_path, Ready(run=0)) as (judge, (link,)):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        link.sendall(body)
        judge.gather(Commitment, Stage.RESULT, WAIT, 0, len(body) - 4)


def test_nonsense_is_the_cause_where_there_is_no_other(tmp_path: Path) -> None:
    with ranks(tmp_path, None, None) as (judge, links):
        sandbox = FakeSandbox(when_asked=lambda: links[1].sendall(body_frame(b"{")))
        watch(judge, sandbox)
        sandbox.end(EndReason.EXITED)
        error = refusal(judge)
    assert error.code is Code.BAD_MESSAGE
    assert error.message.startswith("rank 1 sent a malformed message")


def test_a_large_commitment_of_another_rank_does_not_hide_who_failed(tmp_path: Path) -> None:
    with ranks(tmp_path, None, failed("mine", Stage.RESULT)) as (judge, links):
        large = frame(large_commitment())
        watch(judge, FakeSandbox(when_asked=lambda: links[0].sendall(large)))
        error = refusal(judge)
    assert (error.code, error.message) == (Code.RESULT_INVALID, "rank 1: mine")


def test_a_rank_that_ends_in_the_middle_of_what_it_says_is_no_failure_of_ours(
    tmp_path: Path,
) -> None:
    """A whole Failed, the beginning of a commitment, and its end once the judge looks for the cause."""
    commitment = frame(large_commitment())
    with ranks(tmp_path, None) as (judge, (link,)):
        watch(judge, FakeSandbox(when_asked=link.close))
        link.sendall(frame(failed("mine", Stage.RESULT)) + commitment[:1_000])
        with pytest.raises(SubmissionError) as caught:
            judge.gather(Commitment, Stage.RESULT, WAIT, 0, len(commitment))
    assert (caught.value.code, caught.value.message) == (Code.RESULT_INVALID, "rank 0: mine")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (EndReason.MEMORY, Code.MEMORY_LIMIT),
        (EndReason.PROCESSES, Code.PROCESS_LIMIT),
        (EndReason.OUTBOX, Code.OUTBOX_LIMIT),
    ],
)
def test_a_limit_is_the_cause_of_dead_ranks(tmp_path: Path, reason: EndReason, code: Code) -> None:
    sandbox = FakeSandbox()
    with ranks(tmp_path, BROKEN_PIPE, None) as (judge, links):
        watch(judge, sandbox)
        links[1].close()
        sandbox.end(reason)
        error = refusal(judge)
    assert error.code is code
    assert error.message == f"the sandbox hit its limit: {reason}"


def test_a_limit_that_is_known_a_little_after_the_death_is_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "GRACE_SECONDS", WAIT)  # the limit ends it at once
    with ranks(tmp_path, None) as (judge, (link,)):
        timer = threading.Timer(0.1, lambda: sandbox.end(EndReason.MEMORY))
        sandbox = FakeSandbox(when_asked=timer.start)
        watch(judge, sandbox)
        link.close()
        begin = time.monotonic()
        assert refusal(judge).code is Code.MEMORY_LIMIT
    assert time.monotonic() - begin < WAIT / 2


@pytest.mark.parametrize("reason", [EndReason.EXITED, EndReason.STOPPED])
def test_a_sandbox_that_ends_without_a_limit_has_ended_too_early(
    tmp_path: Path, reason: EndReason
) -> None:
    sandbox = FakeSandbox()
    with ranks(tmp_path, None) as (judge, _):
        watch(judge, sandbox)
        sandbox.end(reason)
        error = refusal(judge)
    assert error.code is Code.RANK_EXITED
    assert error.message == "all ranks ended before their work was done"


@pytest.mark.parametrize("what", ["sandbox", "rank"])
def test_the_judge_does_not_spin_while_it_looks_for_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: type[CountingSelector], what: str
) -> None:
    """What has ended stays readable for ever."""
    monkeypatch.setattr(session_module, "GRACE_SECONDS", 0.3)
    sandbox = FakeSandbox()
    with ranks(tmp_path, None, None) as (judge, links):
        watch(judge, sandbox)
        if what == "rank":
            links[0].close()
        else:
            sandbox.end(EndReason.EXITED)
        assert refusal(judge).code is Code.RANK_EXITED
    assert 0 < turns.turns < 50


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (lambda link: None, "rank 0 ended or was killed before its work was done"),
        (says(b"\0\0\0\1x"), "rank 0 sent a malformed message"),
        (silent, "loading: rank 0 did not finish within 0.5 seconds"),
        (says(frame(failed("mine"))), "rank 0: mine"),
    ],
    ids=["ends", "malformed", "silent", "exception"],
)
def test_before_the_hand_over_every_failure_is_ours(
    tmp_path: Path, script: Script, said: str
) -> None:
    with (
        session(tmp_path, script, handed_over=False) as judge,
        pytest.raises(JudgeError) as caught,
    ):
        judge.gather(Ready, Stage.LOADING, 0.5)
    assert caught.value.code is Code.WORKER_FAILED
    assert caught.value.message.startswith(f"before the submission was loaded: {said}")


def test_nothing_is_handed_over_until_the_caller_says_so(tmp_path: Path) -> None:
    with Session(tmp_path, 1, lambda stage: None) as judge:
        assert judge.handed_over is False


def test_the_traceback_of_a_failure_of_ours_is_kept(tmp_path: Path) -> None:
    ours = Failed(stage=Stage.LOADING, message="no device", detail="Traceback ...")
    with ranks(tmp_path, ours) as (judge, _):
        judge.handed_over = False
        with pytest.raises(JudgeError) as caught:
            judge.gather(Loaded, Stage.LOADING, WAIT)
    assert caught.value.detail == "Traceback ..."
