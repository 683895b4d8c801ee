"""The client and our own server: what one says, the other understands."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from harness.board.organise import add_author, revoke_keys
from harness.board.queue import take
from harness.board.store import Store, open_store
from harness.client import status_of, submit_to
from harness.errors import Code, InputError, SubmissionError, TrainjudgeError, Verdict
from harness.web.app import make_app
from tests.board.examples import (
    ELSEWHERE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)


@dataclass(frozen=True)
class Served:
    """A board, its server's address, and ada's key."""

    store: Store
    url: str
    key: str


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    store = open_store(f"sqlite:///{tmp_path / 'board.sqlite'}")
    board_with(store, "bob")
    key = add_author(store, "ada")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(store), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            end = time.monotonic() + 60
            while not server.started:
                assert time.monotonic() < end
                time.sleep(0.02)
            yield Served(store, f"http://127.0.0.1:{listening.getsockname()[1]}", key)
        finally:
            server.should_exit = True
            thread.join()
            store.close()


def test_a_file_is_handed_in_judged_and_seen(served: Served) -> None:
    hand_in(served.store, "bob", 7)
    number = submit_to(served.url, served.key, "my \u00e4.py", train_file(1), "fused \u20ac")
    waits = status_of(served.url, number)
    assert (waits.author, waits.file_name, waits.state) == ("ada", "my \u00e4.py", "queued")
    assert waits.position == 2
    assert judge_next(served.store, rejected_result()) != number
    assert take(served.store, ELSEWHERE, HPARAMS_SHA256) is not None
    runs = status_of(served.url, number)
    assert (runs.state, runs.position, runs.verdict) == ("running", None, None)


def test_a_verdict_is_understood(served: Served) -> None:
    for result in (accepted_result((0.4, 0.42)), rejected_result()):
        submit_to(served.url, served.key, "train.py", train_file(len(result.runs)))
        judge_next(served.store, result)
    accepted, rejected = status_of(served.url, 1), status_of(served.url, 2)
    assert (accepted.verdict, accepted.code) == (Verdict.ACCEPTED, "ok")
    assert accepted.run_mfus == pytest.approx((0.4, 0.42))
    assert (rejected.verdict, rejected.code) == (Verdict.REJECTED, "update_mismatch")
    assert rejected.message == rejected_result().message
    assert "finished after 33 s" in accepted.history[-1].text


def test_refusals_are_those_of_a_local_board(served: Served) -> None:
    refusals: list[tuple[type[TrainjudgeError], Code, bytes, str]] = [
        (InputError, Code.KEY_REFUSED, train_file(1), "tj_wrong"),
        # So large that it is not read: the answer has to arrive all the same.
        (InputError, Code.KEY_REFUSED, b"#" * 2**20, "tj_wrong"),
        (SubmissionError, Code.FILE_TOO_LARGE, b"#" * 2**21, served.key),
        (SubmissionError, Code.FILE_UNREADABLE, b"", served.key),
        (SubmissionError, Code.SYNTAX_ERROR, b"def (", served.key),
    ]
    for kind, code, source, key in refusals:
        with pytest.raises(kind) as caught:
            submit_to(served.url, key, "train.py", source)
        assert caught.value.code is code
    with pytest.raises(InputError, match="'winter'") as missing:
        submit_to(served.url, served.key, "train.py", train_file(1), season="winter")
    assert missing.value.code is Code.UNKNOWN_ID
    with pytest.raises(InputError, match="there is no submission 99"):
        status_of(served.url, 99)


def test_a_revoked_key_is_refused(served: Served) -> None:
    revoke_keys(served.store, "ada")
    with pytest.raises(InputError, match="revoked") as caught:
        submit_to(served.url, served.key, "train.py", train_file(1))
    assert caught.value.code is Code.KEY_REFUSED
