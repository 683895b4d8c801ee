"""The judge's end of the sockets, against scripted ranks that are as rude as a submission can be."""

import os
import re
import selectors
import socket
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest

from harness.errors import Code, InputError, JudgeError, SubmissionError
from harness.protocol.messages import (
    Again,
    Bye,
    Commitment,
    Done,
    Failed,
    Go,
    Loaded,
    Message,
    Open,
    Opened,
    Piece,
    Progress,
    Ready,
    Stage,
    parse_from_judge,
)
from harness.protocol.wire import FrameBuffer, frame
from harness.sandbox import Ending, EndReason
from harness.timed import session as session_module
from harness.timed.session import Gathered, Session, peer_user

Script = Callable[[socket.socket], None]
Deed = Callable[[], object]
#: What a rank reports when another one has died.
BROKEN_PIPE = Failed(stage=Stage.TRAINING, message="RuntimeError: connection closed by peer")
WAIT = 10.0
REAL_GRACE = session_module.GRACE_SECONDS


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each failure would be most of this file's time."""
    monkeypatch.setattr(session_module, "GRACE_SECONDS", 0.1)


class FakeSandbox:
    """Stands in for a running sandbox: a pipe that becomes readable when it has ended.

    Args:
        user: whose processes are its ranks; this one's by default.
        when_asked: done when the judge first asks whether the sandbox has ended. It asks when it
            has lost a rank and begins to look for the cause, so what is done here is surely later.
    """

    def __init__(self, user: int | None = None, when_asked: Deed | None = None) -> None:
        self.user = os.geteuid() if user is None else user
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            weakref.finalize(self, os.close, descriptor)
        self._ending: Ending | None = None
        self._when_asked = when_asked

    def fileno(self) -> int:
        return self._read

    def ended(self) -> Ending | None:
        deed, self._when_asked = self._when_asked, None
        if deed is not None:
            deed()
        return self._ending

    def end(self, reason: EndReason) -> None:
        self._ending = Ending(reason, None, f"the sandbox hit its limit: {reason}")
        os.write(self._write, b"x")


def watch(judge: Session, sandbox: FakeSandbox) -> None:
    judge.watch(sandbox)  # type: ignore[arg-type]


@contextmanager
def session(tmp_path: Path, *scripts: Script, handed_over: bool = True) -> Iterator[Session]:
    """A session with one thread for each rank that connects and plays its script."""

    def play(rank: int, script: Script) -> None:
        # The judge may hang up at any moment: that is what these tests are about.
        with socket.socket(socket.AF_UNIX) as link, suppress(ConnectionError):
            link.connect(str(tmp_path / f"rank{rank}.sock"))
            script(link)

    with Session(tmp_path, len(scripts), lambda stage: None) as judge:
        judge.handed_over = handed_over
        threads = [
            threading.Thread(target=play, args=item, daemon=True) for item in enumerate(scripts)
        ]
        for thread in threads:
            thread.start()
        yield judge


def connect(tmp_path: Path, rank: int, *messages: Message) -> socket.socket:
    """A rank that has connected and said this, before the judge has looked at its socket."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(WAIT)  # a test must not hang where the judge sends nothing
    link.connect(str(tmp_path / f"rank{rank}.sock"))
    link.sendall(b"".join(frame(message) for message in messages))
    return link


@contextmanager
def ranks(
    tmp_path: Path, *said: Message | None, shown: Callable[[Stage], None] = lambda stage: None
) -> Iterator[tuple[Session, list[socket.socket]]]:
    """A session whose ranks are connected, in this thread, and have said one thing or nothing."""
    with ExitStack() as stack:
        judge = stack.enter_context(Session(tmp_path, len(said), shown))
        judge.handed_over = True
        links = [
            connect(tmp_path, rank, *([] if message is None else [message]))
            for rank, message in enumerate(said)
        ]
        for link in links:
            stack.enter_context(link)
        yield judge, links


def ready(link: socket.socket) -> None:
    link.sendall(frame(Ready(run=0)))
    wait_for_end(link)


def wait_for_end(link: socket.socket) -> None:
    link.recv(1)


def silent(link: socket.socket) -> None:
    wait_for_end(link)


def says(data: bytes) -> Script:
    def script(link: socket.socket) -> None:
        link.sendall(data)
        wait_for_end(link)

    return script


def body_frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def refusal(judge: Session, seconds: float = WAIT) -> SubmissionError:
    with pytest.raises(SubmissionError) as caught:
        judge.gather(Ready, Stage.SETUP, seconds, run=0)
    return caught.value


def rejected(tmp_path: Path, *scripts: Script, seconds: float = WAIT) -> SubmissionError:
    with session(tmp_path, *scripts) as judge:
        return refusal(judge, seconds)


def failed(message: str, stage: Stage = Stage.TRAINING) -> Failed:
    return Failed(stage=stage, message=message)


def done(tokens: int) -> Done:
    return Done(run=0, final_loss=1.0, total_tokens=tokens)


def large_commitment() -> Commitment:
    """Over the 64 KiB of other messages, and little enough for a socket to hold."""
    piece = Piece(
        name="n" * 200, tensor_shape=(1,), offset=(0,), shape=(1,), dtype="float32", digest="0" * 64
    )
    commitment = Commitment(run=0, pieces=(piece,) * 400)
    assert 100_000 < len(frame(commitment)) < 150_000
    return commitment


# --- gathering one message of every rank ----------------------------------------------------------


def test_messages_are_in_rank_order_whatever_order_they_come_in(tmp_path: Path) -> None:
    with Session(tmp_path, 3, lambda stage: None) as judge, ExitStack() as links:
        for rank in (2, 0, 1):
            links.enter_context(connect(tmp_path, rank, done(tokens=rank)))
        gathered = judge.gather(Done, Stage.TRAINING, WAIT, run=0)
    assert [message.total_tokens for message in gathered.messages] == [0, 1, 2]
    assert len(gathered.at) == 3


def test_the_last_arrival_is_that_of_the_slowest_rank() -> None:
    assert Gathered((Ready(run=0),) * 3, (5.0, 7.5, 6.0)).last == 7.5


def test_the_arrival_time_is_of_the_last_byte_of_each_rank(tmp_path: Path) -> None:
    def slow(link: socket.socket) -> None:
        whole = frame(Ready(run=0))
        link.sendall(whole[:-1])
        time.sleep(0.3)
        link.sendall(whole[-1:])
        wait_for_end(link)

    begin = time.perf_counter()
    with session(tmp_path, ready, slow) as judge:
        gathered = judge.gather(Ready, Stage.SETUP, WAIT, run=0)
    end = time.perf_counter()
    assert begin < gathered.at[0] < gathered.at[1] < end
    assert gathered.at[1] - gathered.at[0] > 0.2


def test_messages_that_name_no_run_are_gathered(tmp_path: Path) -> None:
    with ranks(tmp_path, Loaded(), Loaded()) as (judge, _):
        assert judge.gather(Loaded, Stage.LOADING, WAIT).messages == (Loaded(), Loaded())


def test_what_is_due_next_may_lie_there_already(tmp_path: Path) -> None:
    with ranks(tmp_path, Ready(run=0)) as (judge, (link,)):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        link.sendall(frame(done(tokens=4)))
        assert judge.gather(Done, Stage.TRAINING, WAIT, run=0).messages == (done(tokens=4),)


def test_a_rank_that_ends_after_its_last_message_has_failed_nothing(tmp_path: Path) -> None:
    with ranks(tmp_path, Opened(run=0, peak_memory_bytes=7)) as (judge, (link,)):
        link.close()
        (opened,) = judge.gather(Opened, Stage.OPENING, WAIT, run=0).messages
    assert opened.peak_memory_bytes == 7


def test_eight_stages_of_rank_0_are_shown_before_each_ready_and_none_after(tmp_path: Path) -> None:
    shown: list[Stage] = []
    flood = frame(Progress(stage=Stage.SETUP)) * 50 + frame(Progress(stage=Stage.WARMUP)) * 50
    with ranks(tmp_path, None, None, shown=shown.append) as (judge, links):
        for run in (0, 1):
            for link in links:
                link.sendall(flood + frame(Ready(run=run)))
            judge.gather(Ready, Stage.SETUP, WAIT, run=run)
            assert shown == [Stage.SETUP] * 8
            shown.clear()
        for link in links:
            link.sendall(flood + frame(done(tokens=1)))
        judge.gather(Done, Stage.TRAINING, WAIT, run=0)
    assert shown == []


def test_the_stages_that_another_rank_tells_are_not_shown(tmp_path: Path) -> None:
    shown: list[Stage] = []
    with ranks(tmp_path, Ready(run=0), None, shown=shown.append) as (judge, links):
        links[1].sendall(frame(Progress(stage=Stage.SETUP)) + frame(Ready(run=0)))
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
    assert shown == []


# --- messages that are none, or not due -----------------------------------------------------------


def test_a_frame_that_says_it_is_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    error = rejected(tmp_path, says(struct.pack(">I", 2**31) + b"x" * 100))
    assert error.code is Code.BAD_MESSAGE
    assert error.message == (
        "rank 0 sent a frame of 2147483648 bytes where at most 65536 are allowed"
    )


@pytest.mark.parametrize(("size", "said"), [(65_536, "malformed"), (65_537, "a frame of 65537")])
def test_a_frame_may_have_64_kib_and_no_byte_more(tmp_path: Path, size: int, said: str) -> None:
    error = rejected(tmp_path, says(body_frame(b" " * size)))
    assert error.code is Code.BAD_MESSAGE
    assert said in error.message


def test_a_large_commitment_is_taken_when_commitments_are_due(tmp_path: Path) -> None:
    with ranks(tmp_path, large_commitment()) as (judge, _):
        (commitment,) = judge.gather(Commitment, Stage.RESULT, WAIT, run=0).messages
    assert len(commitment.pieces) == 400


def test_a_large_commitment_is_refused_before_it_is_due(tmp_path: Path) -> None:
    with ranks(tmp_path, large_commitment()) as (judge, _):
        assert refusal(judge).code is Code.BAD_MESSAGE


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"type":"ready"}',
        b'{"type":"ready","run":-1}',
        b'{"type":"ready","run":0,"more":1}',
        b'{"type":"key","run":0,"key":"0000000000000000000000000000000000000000000000000000000000000000"}',
        b"[" * 60_000,
        b"\xff\xfe",
        b'{"type":"ready","run":' + b"9" * 5_000 + b"}",
    ],
    ids=[
        "text",
        "list",
        "field missing",
        "negative",
        "unknown field",
        "judge's",
        "deep",
        "utf8",
        "int",
    ],
)
def test_a_malformed_message_is_the_submissions_fault(tmp_path: Path, body: bytes) -> None:
    error = rejected(tmp_path, says(body_frame(body)))
    assert error.code is Code.BAD_MESSAGE
    assert error.message.startswith("rank 0 sent a malformed message (")


def test_the_problem_of_a_malformed_message_is_named_with_its_place(tmp_path: Path) -> None:
    error = rejected(tmp_path, silent, says(body_frame(b'{"type":"ready","run":-1}')))
    assert re.fullmatch(
        r"rank 1 sent a malformed message \(Expected `int` >= 0 - at `\$\.run`\)",
        error.message,
    )


def test_a_message_that_is_no_json_has_no_place(tmp_path: Path) -> None:
    said = rejected(tmp_path, says(body_frame(b"{"))).message
    assert said == "rank 0 sent a malformed message (Input data was truncated)"


def test_a_message_that_was_not_due_is_refused(tmp_path: Path) -> None:
    error = rejected(tmp_path, silent, says(frame(done(tokens=1))))
    assert error.code is Code.BAD_MESSAGE
    assert error.message == "rank 1 sent Done where Ready was due"


def test_a_message_of_another_run_is_refused(tmp_path: Path) -> None:
    assert rejected(tmp_path, says(frame(Ready(run=7)))).code is Code.BAD_MESSAGE


def test_the_same_message_twice_is_refused(tmp_path: Path) -> None:
    error = rejected(tmp_path, says(frame(Ready(run=0)) * 2), silent)
    assert error.code is Code.BAD_MESSAGE


# --- a rank that does not answer, or does not listen ----------------------------------------------


def test_a_silent_rank_times_out_and_is_named(tmp_path: Path) -> None:
    with ranks(tmp_path, Ready(run=0), None) as (judge, _):
        error = refusal(judge, seconds=0.25)
    assert error.code is Code.TIMED_OUT
    assert error.message == "setup: rank 1 did not finish within 0.25 seconds"


def test_all_ranks_that_are_late_are_named(tmp_path: Path) -> None:
    with ranks(tmp_path, None, Ready(run=0), None) as (judge, _):
        assert "ranks 0, 2 did not finish" in refusal(judge, seconds=0.1).message


def test_a_flood_of_progress_cannot_hold_the_judge(tmp_path: Path) -> None:
    def flood(link: socket.socket) -> None:
        try:
            while True:
                link.sendall(frame(Progress(stage=Stage.SETUP)) * 1_000)
        except OSError:
            pass

    begin = time.monotonic()
    assert rejected(tmp_path, flood, seconds=0.3).code is Code.TIMED_OUT
    assert time.monotonic() - begin < 5


def test_what_comes_after_the_deadline_is_late_though_the_judge_never_had_to_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something lies in the socket at every turn: the deadline has to be looked at in each."""
    monkeypatch.setattr(session_module, "RECEIVE_BYTES", 16)  # 6,000 turns for what lies there
    with ranks(tmp_path, None) as (judge, (link,)):
        link.sendall(frame(Progress(stage=Stage.SETUP)) * 2_000 + frame(Ready(run=0)))
        assert refusal(judge, seconds=0.01).code is Code.TIMED_OUT


def test_a_rank_that_does_not_read_cannot_hold_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "SEND_SECONDS", 0.1)
    more_than_the_socket_holds = Open(run=0, pieces=(2**40,) * 60_000)
    with ranks(tmp_path, Ready(run=0), Ready(run=0)) as (judge, _):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        with pytest.raises(SubmissionError) as caught:
            judge.send([Again(run=1), more_than_the_socket_holds])
    assert caught.value.code is Code.TIMED_OUT
    assert caught.value.message == "rank 1 does not read its socket"


class CountingSelector(selectors.DefaultSelector):
    """Counts how often it is asked. A judge that spins asks thousands of times."""

    turns: ClassVar[int] = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        CountingSelector.turns += 1
        return super().select(timeout)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> type[CountingSelector]:
    monkeypatch.setattr(selectors, "DefaultSelector", CountingSelector)
    CountingSelector.turns = 0
    return CountingSelector


def test_the_judge_does_not_spin_while_it_waits(
    tmp_path: Path, turns: type[CountingSelector]
) -> None:
    """It waits beside ranks that are being timed."""
    with ranks(tmp_path, None) as (judge, _):
        refusal(judge, seconds=0.3)
    assert 0 < turns.turns < 20


# --- what the judge says --------------------------------------------------------------------------


def heard(link: socket.socket) -> Message:
    buffer = FrameBuffer()
    while (body := buffer.pop(1 << 20)) is None:
        buffer.feed(link.recv(1))
    return parse_from_judge(body)


def test_each_rank_is_sent_its_own_message(tmp_path: Path) -> None:
    with ranks(tmp_path, Ready(run=0), Ready(run=0)) as (judge, links):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        judge.send([Open(run=0, pieces=(1, 2)), Open(run=0, pieces=(3,))])
        assert [heard(link) for link in links] == [
            Open(run=0, pieces=(1, 2)),
            Open(run=0, pieces=(3,)),
        ]
        judge.broadcast(Bye())
        assert [heard(link) for link in links] == [Bye(), Bye()]


def test_too_few_messages_for_the_ranks_are_a_defect_of_the_judge(tmp_path: Path) -> None:
    with ranks(tmp_path, Ready(run=0), Ready(run=0)) as (judge, _):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        with pytest.raises(ValueError, match="shorter"):
            judge.send([Bye()])


def test_a_rank_that_has_gone_when_the_judge_speaks_is_named(tmp_path: Path) -> None:
    with ranks(tmp_path, Ready(run=0), Ready(run=0)) as (judge, links):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        links[1].close()
        with pytest.raises(SubmissionError) as caught:
            judge.broadcast(Go(run=0, steps=1, challenge="c"))
    assert caught.value.code is Code.RANK_EXITED
    assert "rank 1 " in caught.value.message


def test_the_last_words_of_a_rank_that_has_gone_are_heard(tmp_path: Path) -> None:
    with ranks(tmp_path, Ready(run=0)) as (judge, (link,)):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        link.sendall(frame(failed("mine")))
        link.close()
        with pytest.raises(SubmissionError) as caught:
            judge.broadcast(Go(run=0, steps=1, challenge="c"))
    assert (caught.value.code, caught.value.message) == (Code.TRAINING_FAILED, "rank 0: mine")


def test_a_rank_that_dies_with_the_judges_words_unread_has_ended(tmp_path: Path) -> None:
    """The kernel then reports a reset, not an end of the stream."""
    with ranks(tmp_path, Ready(run=0)) as (judge, (link,)):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        judge.broadcast(Again(run=1))
        link.close()
        assert refusal(judge).code is Code.RANK_EXITED


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


# --- who may connect ------------------------------------------------------------------------------


def test_a_process_of_another_user_is_not_taken_for_a_rank(tmp_path: Path) -> None:
    with session(tmp_path, ready) as judge:
        watch(judge, FakeSandbox(user=os.geteuid() + 1))
        assert refusal(judge, seconds=0.3).code is Code.TIMED_OUT


def test_the_rank_can_still_connect_after_a_process_of_another_user_has_tried(
    tmp_path: Path,
) -> None:
    sandbox = FakeSandbox(user=os.geteuid() + 1)
    with Session(tmp_path, 1, lambda stage: None) as judge:
        judge.handed_over = True
        watch(judge, sandbox)
        with connect(tmp_path, 0, Ready(run=5)) as intruder:
            refusal(judge, seconds=0.1)
            with suppress(ConnectionResetError):
                assert intruder.recv(1) == b""
        sandbox.user = os.geteuid()
        with connect(tmp_path, 0, Ready(run=0)):
            judge.gather(Ready, Stage.SETUP, WAIT, run=0)


def test_the_user_of_a_connection_is_told_from_its_group_and_its_process() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else for a moment")
    group = os.getegid()
    try:
        os.setegid(4_321)
        os.seteuid(1_234)
        ours, theirs = socket.socketpair(socket.AF_UNIX)
    finally:
        os.seteuid(0)
        os.setegid(group)
    with ours, theirs:
        assert peer_user(ours) == 1_234


def test_a_second_connection_to_a_socket_is_refused(tmp_path: Path) -> None:
    with session(tmp_path, ready) as judge:
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        with socket.socket(socket.AF_UNIX) as intruder, pytest.raises(ConnectionRefusedError):
            intruder.connect(str(tmp_path / "rank0.sock"))


def test_a_rank_that_is_another_user_can_reach_its_socket(tmp_path: Path) -> None:
    with Session(tmp_path, 1, lambda stage: None):
        assert stat.S_IMODE((tmp_path / "rank0.sock").stat().st_mode) == 0o666


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_session_that_is_over_holds_no_descriptor_and_takes_no_connection(tmp_path: Path) -> None:
    before = descriptors()
    with ranks(tmp_path, Ready(run=0)) as (judge, _):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
    (tmp_path / "other").mkdir()
    with Session(tmp_path / "other", 2, lambda stage: None) as never_met:
        pass
    # Both sessions are still referred to: it is not the garbage collector that has closed them.
    assert judge is not never_met
    assert descriptors() <= before
    with pytest.raises(ConnectionRefusedError):
        connect(tmp_path / "other", 0)


def test_a_temporary_folder_with_too_long_a_path_is_the_callers_fault(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    before = descriptors()
    with pytest.raises(InputError, match="TMPDIR") as caught:
        Session(folder, 1, lambda stage: None)
    assert caught.value.code is Code.BAD_ARGUMENT
    assert not [fd for fd in descriptors() - before if is_socket(fd)]


def is_socket(descriptor: str) -> bool:
    with suppress(FileNotFoundError):  # the one that listed them
        return str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("socket:")
    return False


# --- a rank's words for a person ------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"ready","run":0,"\\u001b[2J' + b"x" * 50_000 + b'":1}',
        b'{"type":"\\u001b[2J' + b"x" * 50_000 + b'"}',
        b'{"type":"ready","run":0,' + b",".join(b'"%d":0' % n for n in range(5_000)) + b"}",
    ],
    ids=["name", "type", "many names"],
)
def test_a_malformed_message_cannot_write_to_the_terminal(tmp_path: Path, body: bytes) -> None:
    error = rejected(tmp_path, says(body_frame(body)))
    assert error.code is Code.BAD_MESSAGE
    assert "\x1b" not in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "body", [b'{"type":"%s"}', b'{"type":"ready","run":0,"%s":1}'], ids=["type", "name"]
)
def test_200_characters_of_a_sentence_that_quotes_a_rank_are_shown(
    tmp_path: Path, body: bytes
) -> None:
    error = rejected(tmp_path, says(body_frame(body % (b"t" * 1_000))))
    found = re.fullmatch(r"rank 0 sent a malformed message \((.*) \.\.\.\)", error.message)
    assert found is not None and len(found[1]) == 200


def test_an_exceptions_message_is_one_line(tmp_path: Path) -> None:
    rude = Failed(stage=Stage.SETUP, message="no" + "\n" * 60 + "ACCEPTED", detail="")
    with ranks(tmp_path, rude) as (judge, _):
        assert refusal(judge).message == "rank 0: no ACCEPTED"


def test_an_exceptions_text_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    rude = Failed(stage=Stage.SETUP, message="\x1b[2Jgone", detail="a\nb\x1b]0;title\x07\u202e")
    with ranks(tmp_path, rude) as (judge, _):
        error = refusal(judge)
    assert "\x1b" not in error.message + error.detail
    assert error.message.endswith("[2Jgone")
    assert error.detail.startswith("a\nb")
    assert "\u202e" not in error.detail
