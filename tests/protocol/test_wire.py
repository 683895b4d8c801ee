"""Frames: at their limit, beyond it, in any portions; and the rank's end of a real socket."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from harness.protocol.messages import (
    Bye,
    Go,
    Import,
    MalformedError,
    Message,
    Ready,
    parse_from_rank,
)
from harness.protocol.wire import FrameBuffer, RankSocket, frame


class Small(Message, frozen=True):
    """A message of 26 bytes and a text."""

    max_bytes: ClassVar[int] = 35
    text: str


# --- frames -----------------------------------------------------------------------------------


def test_a_frame_is_a_big_endian_length_and_json() -> None:
    assert frame(Ready(run=7)) == b'\x00\x00\x00\x18{"type":"ready","run":7}'


def test_the_length_counts_bytes_not_characters() -> None:
    assert (
        frame(Small(text="éé"))
        == b'\x00\x00\x00\x1e{"type":"small","text":"' + "éé".encode() + b'"}'
    )


def test_a_message_at_its_limit_is_framed_and_one_byte_more_is_not() -> None:
    assert frame(Small(text="x" * 9)) == b'\x00\x00\x00\x23{"type":"small","text":"xxxxxxxxx"}'
    with pytest.raises(ValueError, match="Small of 36 bytes"):
        frame(Small(text="x" * 10))


def test_a_framed_message_is_read_as_what_it_was() -> None:
    buffer = FrameBuffer()
    buffer.feed(frame(Ready(run=7)))
    body = buffer.pop(24)
    assert body is not None
    assert parse_from_rank(body) == Ready(run=7)


def test_a_frame_at_the_limit_passes_and_one_byte_more_is_refused() -> None:
    at_limit, beyond = FrameBuffer(), FrameBuffer()
    at_limit.feed(b"\x00\x00\x00\x05hello")
    assert at_limit.pop(5) == b"hello"
    beyond.feed(b"\x00\x00\x00\x06hello!")
    with pytest.raises(ValueError, match="6 bytes where at most 5"):
        beyond.pop(5)


def test_a_frame_beyond_the_limit_is_refused_by_its_length_before_it_is_read() -> None:
    buffer = FrameBuffer()
    buffer.feed(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="4294967295 bytes"):
        buffer.pop(1_000)


def test_frames_arrive_in_any_portions() -> None:
    sent = b"\x00\x00\x00\x03one\x00\x00\x00\x00\x00\x00\x00\x05three"
    for size in range(1, len(sent) + 1):
        buffer, bodies = FrameBuffer(), []
        for begin in range(0, len(sent), size):
            buffer.feed(sent[begin : begin + size])
            while (body := buffer.pop(10)) is not None:
                bodies.append(body)
        assert bodies == [b"one", b"", b"three"], size


@pytest.mark.parametrize("length", range(9))
def test_a_part_of_a_frame_is_no_frame(length: int) -> None:
    buffer = FrameBuffer()
    buffer.feed(b"\x00\x00\x00\x05hello"[:length])
    assert buffer.pop(5) is None
    # Nothing of it was lost by looking.
    buffer.feed(b"\x00\x00\x00\x05hello"[length:])
    assert buffer.pop(5) == b"hello"
    assert buffer.pop(5) is None


# --- a rank's socket --------------------------------------------------------------------------


class Judge:
    """The other end: what it says is bytes, so that it can be cut anywhere."""

    def __init__(self, path: Path) -> None:
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(path))
        self._door.listen(1)
        # A test that would wait forever fails after a while.
        self._door.settimeout(10)
        self.rank = RankSocket(str(path))
        self.rank._socket.settimeout(10)
        self.link, _ = self._door.accept()
        self.link.settimeout(10)

    def close(self) -> None:
        self.link.close()
        self._door.close()


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    judge = Judge(tmp_path / "rank0.sock")
    yield judge
    judge.close()


def test_a_rank_sends_whole_frames(judge: Judge) -> None:
    judge.rank.send(Ready(run=3))
    assert judge.link.recv(1_000) == b'\x00\x00\x00\x18{"type":"ready","run":3}'


def test_a_rank_does_not_send_what_is_over_the_limit(judge: Judge) -> None:
    with pytest.raises(ValueError, match="over its limit"):
        judge.rank.send(Small(text="x" * 10))
    judge.rank.send(Ready(run=3))
    assert judge.link.recv(1_000) == frame(Ready(run=3))


def test_a_rank_gets_one_message_at_a_time_in_order(judge: Judge) -> None:
    judge.link.sendall(frame(Import(file="train.py")) + frame(Bye()))
    assert judge.rank.receive() == Import(file="train.py")
    assert judge.rank.receive() == Bye()


def test_a_rank_waits_for_the_rest_of_a_message(judge: Judge) -> None:
    go = Go(run=0, steps=8, challenge="run0")
    sent = frame(go)
    judge.link.sendall(sent[:3])
    rest = threading.Timer(0.05, judge.link.sendall, [sent[3:]])
    rest.start()
    assert judge.rank.receive() == go
    rest.join()


def test_a_rank_gets_a_message_larger_than_one_read(judge: Judge) -> None:
    body = b'{"type":"bye"' + b" " * 200_000 + b"}"
    sender = threading.Thread(
        target=judge.link.sendall, args=(len(body).to_bytes(4, "big") + body,)
    )
    sender.start()
    assert judge.rank.receive() == Bye()
    sender.join()


@pytest.mark.parametrize("begun", [b"", b"\x00\x00", b"\x00\x00\x00\x10{"])
def test_a_judge_that_hangs_up_ends_the_wait(judge: Judge, begun: bytes) -> None:
    judge.link.sendall(begun)
    judge.link.close()
    with pytest.raises(EOFError, match="closed the socket"):
        judge.rank.receive()


def test_a_rank_takes_at_most_64_mib(judge: Judge) -> None:
    """At the limit it waits for the body, here in vain; beyond it does not begin to."""
    judge.link.sendall((67_108_864).to_bytes(4, "big"))
    judge.link.close()
    with pytest.raises(EOFError):
        judge.rank.receive()


def test_a_rank_refuses_more_than_64_mib(judge: Judge) -> None:
    judge.link.sendall((67_108_865).to_bytes(4, "big"))
    judge.link.close()
    with pytest.raises(ValueError, match="67108865 bytes where at most 67108864"):
        judge.rank.receive()


def test_a_rank_refuses_what_no_judge_says(judge: Judge) -> None:
    judge.link.sendall(frame(Ready(run=0)))
    with pytest.raises(MalformedError):
        judge.rank.receive()
