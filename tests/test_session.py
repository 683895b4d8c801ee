"""The judge's end of the sockets, against scripted ranks that are as rude as a submission can be."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.errors import Code, InputError, JudgeError, SubmissionError
from harness.protocol.messages import (
    Commitment,
    Done,
    Failed,
    Piece,
    Progress,
    Ready,
    Stage,
    parse_from_rank,
)
from harness.protocol.wire import frame
from harness.sandbox import Ending, EndReason
from harness.session import Session

Script = Callable[[socket.socket], None]
#: What a rank reports when another one has died.
BROKEN_PIPE = Failed(stage=Stage.TRAINING, message="RuntimeError: connection closed by peer")


class FakeSandbox:
    """Stands in for a running sandbox: a pipe that becomes readable when it has ended."""

    def __init__(self, user: int | None = None) -> None:
        self.user = os.geteuid() if user is None else user
        self._read, self._write = os.pipe()
        self._ending: Ending | None = None

    def fileno(self) -> int:
        return self._read

    def ended(self) -> Ending | None:
        return self._ending

    def end(self, reason: EndReason) -> None:
        self._ending = Ending(reason, None, f"the sandbox hit its limit: {reason}")
        os.close(self._write)


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


def rejected(tmp_path: Path, *scripts: Script, seconds: float = 5.0) -> SubmissionError:
    with session(tmp_path, *scripts) as judge, pytest.raises(SubmissionError) as caught:
        judge.gather(Ready, Stage.SETUP, seconds, run=0)
    return caught.value


def test_all_ranks_ready_are_gathered_in_rank_order(tmp_path: Path) -> None:
    with session(tmp_path, ready, ready, ready) as judge:
        gathered = judge.gather(Ready, Stage.SETUP, 5.0, run=0)
    assert len(gathered.messages) == 3
    assert gathered.last == max(gathered.at)


def test_the_arrival_time_is_of_the_last_byte_of_the_slowest_rank(tmp_path: Path) -> None:
    def slow(link: socket.socket) -> None:
        whole = frame(Ready(run=0))
        link.sendall(whole[:-1])
        time.sleep(0.3)
        link.sendall(whole[-1:])
        wait_for_end(link)

    with session(tmp_path, ready, slow) as judge:
        gathered = judge.gather(Ready, Stage.SETUP, 5.0, run=0)
    assert gathered.at[1] - gathered.at[0] > 0.2


def test_a_frame_that_says_it_is_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    error = rejected(tmp_path, says(struct.pack(">I", 2**31) + b"x" * 100))
    assert error.code is Code.BAD_MESSAGE
    assert "2147483648 bytes" in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"type":"ready"}',
        b'{"type":"ready","run":-1}',
        b'{"type":"ready","run":0,"more":1}',
        b'{"type":"key","run":0,"key":"0000000000000000"}',
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
    assert rejected(tmp_path, says(struct.pack(">I", len(body)) + body)).code is Code.BAD_MESSAGE


def test_a_message_that_was_not_due_is_refused(tmp_path: Path) -> None:
    done = Done(run=0, final_loss=1.0, total_tokens=1)
    assert "Done where Ready was due" in rejected(tmp_path, says(frame(done))).message


def test_a_message_of_another_run_is_refused(tmp_path: Path) -> None:
    assert rejected(tmp_path, says(frame(Ready(run=7)))).code is Code.BAD_MESSAGE


def test_the_same_message_twice_is_refused(tmp_path: Path) -> None:
    error = rejected(tmp_path, says(frame(Ready(run=0)) * 2), silent)
    assert error.code is Code.BAD_MESSAGE


def test_a_silent_rank_times_out_and_is_named(tmp_path: Path) -> None:
    error = rejected(tmp_path, ready, silent, seconds=0.3)
    assert error.code is Code.TIMED_OUT
    assert "rank 1" in error.message


def test_a_flood_of_progress_cannot_hold_the_judge(tmp_path: Path) -> None:
    def flood(link: socket.socket) -> None:
        try:
            while True:
                link.sendall(frame(Progress(stage=Stage.SETUP)) * 1_000)
        except OSError:
            pass

    begin = time.monotonic()
    assert rejected(tmp_path, flood, seconds=0.5).code is Code.TIMED_OUT
    assert time.monotonic() - begin < 5


def test_a_rank_that_hangs_up_ends_the_evaluation_at_once(tmp_path: Path) -> None:
    begin = time.monotonic()
    error = rejected(tmp_path, silent, lambda link: None, seconds=60)
    assert error.code is Code.RANK_EXITED
    assert "rank 1" in error.message
    assert time.monotonic() - begin < 10


def test_an_exception_on_one_rank_does_not_wait_for_the_others(tmp_path: Path) -> None:
    failed = Failed(stage=Stage.TRAINING, message="ValueError: mine", detail="Traceback ...")
    error = rejected(tmp_path, silent, says(frame(failed)), seconds=60)
    assert (error.code, error.detail) == (Code.TRAINING_FAILED, "Traceback ...")
    assert error.message == "rank 1: ValueError: mine"


def test_a_dead_rank_is_the_cause_of_the_exceptions_in_the_others(tmp_path: Path) -> None:
    def dies(link: socket.socket) -> None:
        time.sleep(0.2)

    error = rejected(tmp_path, says(frame(BROKEN_PIPE)), dies)
    assert error.code is Code.RANK_EXITED
    assert "rank 1" in error.message


def test_a_rank_that_dies_as_soon_as_it_has_connected_is_the_cause_too(tmp_path: Path) -> None:
    def connects_late_and_dies() -> None:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(tmp_path / "rank1.sock"))

    with Session(tmp_path, 2, lambda stage: None) as judge, socket.socket(socket.AF_UNIX) as link:
        judge.handed_over = True
        link.connect(str(tmp_path / "rank0.sock"))
        link.sendall(frame(BROKEN_PIPE))
        threading.Timer(0.2, connects_late_and_dies).start()
        with pytest.raises(SubmissionError) as caught:
            judge.gather(Ready, Stage.SETUP, 5.0, run=0)
    assert caught.value.code is Code.RANK_EXITED
    assert "rank 1" in caught.value.message


def test_a_limit_is_the_cause_of_dead_ranks(tmp_path: Path) -> None:
    sandbox = FakeSandbox()

    def dies(link: socket.socket) -> None:
        sandbox.end(EndReason.MEMORY)

    with session(tmp_path, dies) as judge, pytest.raises(SubmissionError) as caught:
        judge.watch(sandbox)  # type: ignore[arg-type]
        judge.gather(Ready, Stage.SETUP, 5.0, run=0)
    assert caught.value.code is Code.MEMORY_LIMIT


def test_before_the_hand_over_every_failure_is_ours(tmp_path: Path) -> None:
    for script in (lambda link: None, says(b"\0\0\0\1x"), silent):
        folder = tmp_path / str(id(script))
        folder.mkdir()
        with session(folder, script, handed_over=False) as judge, pytest.raises(JudgeError):
            judge.gather(Ready, Stage.LOADING, 0.5)


def test_a_process_of_another_user_is_not_taken_for_a_rank(tmp_path: Path) -> None:
    with session(tmp_path, ready) as judge, pytest.raises(SubmissionError) as caught:
        judge.watch(FakeSandbox(user=os.geteuid() + 1))  # type: ignore[arg-type]
        judge.gather(Ready, Stage.SETUP, 0.5, run=0)
    assert caught.value.code is Code.TIMED_OUT


def test_a_second_connection_to_a_socket_is_refused(tmp_path: Path) -> None:
    with session(tmp_path, ready) as judge:
        judge.gather(Ready, Stage.SETUP, 5.0, run=0)
        with socket.socket(socket.AF_UNIX) as intruder, pytest.raises(ConnectionRefusedError):
            intruder.connect(str(tmp_path / "rank0.sock"))


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
    error = rejected(tmp_path, says(struct.pack(">I", len(body)) + body))
    assert error.code is Code.BAD_MESSAGE
    assert "\x1b" not in error.message
    assert len(error.message) < 500


def test_an_exceptions_text_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    failed = Failed(stage=Stage.SETUP, message="\x1b[2Jgone", detail="a\nb\x1b]0;title\x07\u202e")
    error = rejected(tmp_path, says(frame(failed)))
    assert "\x1b" not in error.message + error.detail
    assert error.message.endswith("[2Jgone")
    assert error.detail.startswith("a\nb")
    assert "\u202e" not in error.detail


def test_a_large_commitment_of_another_rank_does_not_hide_who_failed(tmp_path: Path) -> None:
    piece = Piece(
        name="n" * 200, tensor_shape=(1,), offset=(0,), shape=(1,), dtype="float32", digest="0" * 16
    )

    def commits(link: socket.socket) -> None:
        time.sleep(0.3)
        link.sendall(frame(Commitment(run=0, pieces=(piece,) * 1_000)))
        wait_for_end(link)

    failed = Failed(stage=Stage.RESULT, message="mine")
    with (
        session(tmp_path, commits, says(frame(failed))) as judge,
        pytest.raises(SubmissionError) as caught,
    ):
        judge.gather(Commitment, Stage.RESULT, 5.0, run=0)
    assert (caught.value.code, caught.value.message) == (Code.RESULT_INVALID, "rank 1: mine")


def test_progress_is_shown_a_few_times_and_only_before_ready(tmp_path: Path) -> None:
    shown: list[Stage] = []

    with Session(tmp_path, 1, shown.append) as judge:
        judge.handed_over = True
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(tmp_path / "rank0.sock"))
        link.sendall(frame(Progress(stage=Stage.SETUP)) * 100 + frame(Ready(run=0)))
        judge.gather(Ready, Stage.SETUP, 5.0, run=0)
        assert 0 < len(shown) < 20
        before = len(shown)
        link.sendall(frame(Progress(stage=Stage.SETUP)) * 100)
        link.sendall(frame(Done(run=0, final_loss=1.0, total_tokens=1)))
        judge.gather(Done, Stage.TRAINING, 5.0, run=0)
        assert len(shown) == before
        link.close()


def test_a_temporary_folder_with_too_long_a_path_is_the_callers_fault(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with pytest.raises(InputError, match="TMPDIR"):
        Session(folder, 1, lambda stage: None)


def test_a_long_list_of_nonsense_is_one_error_not_as_many_as_it_is_long() -> None:
    body = b'{"type":"commitment","run":0,"pieces":[' + b"0," * 500_000 + b"0]}"
    with pytest.raises(ValidationError) as caught:
        parse_from_rank(body)
    assert caught.value.error_count() == 1
