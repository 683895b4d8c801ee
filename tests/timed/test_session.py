"""The judge's end of the sockets, against scripted ranks that are as rude as a submission can be."""

import re
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.errors import Code, SubmissionError
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
    Progress,
    Ready,
    Stage,
    parse_from_judge,
)
from harness.protocol.wire import FrameBuffer, frame
from harness.timed import session as session_module
from harness.timed.session import Gathered, Session
from tests.timed.scripted_ranks import (
    WAIT,
    CountingSelector,
    body_frame,
    connect,
    done,
    failed,
    large_commitment,
    ranks,
    ready,
    refusal,
    rejected,
    says,
    session,
    silent,
    wait_for_end,
)

pytest_plugins = ("tests.timed.scripted_ranks",)
pytestmark = pytest.mark.usefixtures("short_grace")

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
