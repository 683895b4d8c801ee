"""Handing in at a server and asking it: what is sent, what is understood, and what can go wrong."""

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.client import status_of, submit_to, transport
from harness.errors import (
    Code,
    InputError,
    JudgeError,
    SubmissionError,
    TrainjudgeError,
    Verdict,
)
from tests.client.standin import (
    Answer,
    Asked,
    Standin,
    answered,
    evaluation,
    serving,
    submission,
)

KEY = "tj_a-key"
HTML = Answer(200, b"<!doctype html><html>Welcome", {"Content-Type": "text/html"})


@pytest.fixture
def server() -> Iterator[Standin]:
    with serving() as started:
        yield started


def _submit(server: Standin, **changes: Any) -> int:
    given = {"key": KEY, "file_name": "train.py", "source": b"x = 1\n", **changes}
    return submit_to(server.url, **given)


# --- handing in -------------------------------------------------------------------------------


def test_a_file_arrives_with_its_name_note_and_season(server: Standin) -> None:
    server.answer = lambda asked: answered(201, {"id": 17, "url": "x", "position": 1})
    source = b'print("\xc3\xa4")\r\n\n'
    number = _submit(
        server,
        source=source,
        file_name='my "train" \u00e4.py',
        note="fused, 100 %",
        season="autumn",
    )
    assert number == 17
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/submissions")
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    parts = {name: (file, content) for name, file, content in asked.parts}
    assert parts["note"] == (None, b"fused, 100 %")
    assert parts["season"] == (None, b"autumn")
    assert parts["file"][1] == source


def test_without_a_season_the_server_chooses(server: Standin) -> None:
    server.answer = lambda asked: answered(201, {"id": 1})
    _submit(server)
    assert [name for name, _, _ in server.asked[0].parts] == ["note", "file"]


def test_a_server_may_lie_below_a_path(server: Standin) -> None:
    server.answer = lambda asked: answered(201, {"id": 1})
    submit_to(f"{server.url}/boards/", KEY, "train.py", b"x")
    assert server.asked[0].path == "/boards/api/v1/submissions"


def test_a_key_is_not_sent_in_the_open() -> None:
    with pytest.raises(InputError, match="not encrypted"):
        submit_to("http://board.invalid", KEY, "train.py", b"x")


def test_a_netrc_and_a_proxy_do_not_come_between(
    server: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.answer = lambda asked: answered(201, {"id": 1})
    _submit(server)
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, Code.BAD_ARGUMENT, InputError),
        (401, Code.KEY_REFUSED, InputError),
        (404, Code.UNKNOWN_ID, InputError),
        (409, Code.NOT_NOW, InputError),
        (413, Code.FILE_TOO_LARGE, SubmissionError),
        (422, Code.STRATEGY_WORLD_MISMATCH, SubmissionError),
        (422, Code.SYNTAX_ERROR, SubmissionError),
        (429, Code.RATE_LIMITED, InputError),
        (500, Code.INTERNAL, JudgeError),
        (500, Code.STORE_UNAVAILABLE, JudgeError),
        (503, Code.STORE_NEWER, JudgeError),
    ],
)
def test_what_a_server_refuses_is_told_as_if_it_had_happened_here(
    server: Standin, status: int, code: Code, kind: type[TrainjudgeError]
) -> None:
    server.answer = lambda asked: answered(status, {"code": code, "message": "line 3: no\x1b[2J"})
    with pytest.raises(kind) as caught:
        _submit(server)
    assert caught.value.code is code
    assert caught.value.message == "line 3: no\ufffd[2J"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, Code.KEY_REFUSED, InputError),
        (404, Code.UNKNOWN_ID, InputError),
        (409, Code.NOT_NOW, InputError),
        (413, Code.FILE_TOO_LARGE, SubmissionError),
        (422, Code.FILE_UNREADABLE, SubmissionError),
        (429, Code.RATE_LIMITED, InputError),
        (418, Code.BAD_ARGUMENT, InputError),
        (502, Code.STORE_FAILED, JudgeError),
    ],
)
@pytest.mark.parametrize(
    "body",
    [b"<html>nginx", b"", b'{"code": "ok", "message": ""}', b'{"code": "new", "message": ""}'],
)
def test_a_refusal_in_no_words_of_ours_is_understood_by_its_status(
    server: Standin, status: int, code: Code, kind: type[TrainjudgeError], body: bytes
) -> None:
    server.answer = lambda asked: Answer(status, body)
    with pytest.raises(kind) as caught:
        _submit(server)
    assert caught.value.code is code
    assert server.url in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        HTML.body,
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"id": "' + b"9" * 10_000 + b'"}',
        b'{"id": 0}',
        b'{"id": 9223372036854775808}',
        b"\xff\xfe",
    ],
)
def test_an_answer_that_is_none_of_a_leaderboard_is_said_to_be_so(
    server: Standin, body: bytes
) -> None:
    server.answer = lambda asked: Answer(201, body)
    with pytest.raises(InputError, match="does not answer as a leaderboard does") as caught:
        _submit(server)
    assert len(caught.value.message) < 300


def test_a_server_that_sends_us_elsewhere_gets_nothing_more(server: Standin) -> None:
    server.answer = lambda asked: Answer(307, b"", {"Location": "https://elsewhere.example/"})
    with pytest.raises(InputError, match=r"https://elsewhere\.example/"):
        _submit(server)
    assert len(server.asked) == 1


def test_an_answer_without_an_end_is_cut_off(
    server: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 100_000)
    server.answer = lambda asked: Answer(201, b" " * 100_001)
    with pytest.raises(JudgeError, match="sends more than 100,000 bytes"):
        _submit(server)


def test_an_answer_within_the_limit_is_read_whole(
    server: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 100_000)
    server.answer = lambda asked: Answer(201, b'{"id": 5}' + b" " * 99_991)
    assert _submit(server) == 5


def test_a_server_that_says_nothing_is_given_up(
    server: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "SILENCE_SECONDS", 0.3)
    over = threading.Event()

    def wait(asked: Asked) -> Answer:
        over.wait(30)
        return Answer()

    server.answer = wait
    try:
        with pytest.raises(JudgeError, match="no answer in time") as caught:
            _submit(server)
    finally:
        over.set()
    assert caught.value.code is Code.STORE_UNAVAILABLE
    assert "may have been taken" in caught.value.message


def test_an_answer_that_drips_is_given_up(server: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_SECONDS", -1.0)
    server.answer = lambda asked: answered(201, {"id": 1})
    with pytest.raises(JudgeError, match="has not finished its answer"):
        _submit(server)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 201 Created\r\nContent-Length: 50\r\n\r\n{",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_connection_that_breaks_leaves_open_whether_the_file_was_taken(
    server: Standin, raw: bytes
) -> None:
    server.answer = lambda asked: Answer(raw=raw)
    with pytest.raises(JudgeError, match="may have been taken") as caught:
        _submit(server)
    assert caught.value.code is Code.STORE_UNAVAILABLE


def test_a_server_that_is_not_there_took_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(JudgeError) as caught:
            submit_to(url, KEY, "train.py", b"x")
    assert caught.value.code is Code.STORE_UNAVAILABLE
    assert caught.value.message == f"cannot reach {url}: Connection refused"


def test_an_unknown_host_is_said_to_be_so() -> None:
    with pytest.raises(JudgeError, match=r"cannot reach https://board\.invalid: ") as caught:
        submit_to("https://board.invalid", KEY, "train.py", b"x")
    assert "may have been taken" not in caught.value.message


class _Quiet(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        raise AssertionError("nothing may arrive")


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
         "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    server = HTTPServer(("127.0.0.1", 0), _Quiet)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with pytest.raises(InputError, match="no trusted connection") as caught:
            submit_to(f"https://localhost:{server.server_address[1]}", KEY, "train.py", b"x")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert "self-signed" in caught.value.message


def test_a_server_that_speaks_no_tls_is_said_to_be_so(server: Standin) -> None:
    with pytest.raises(InputError, match="no trusted connection"):
        submit_to(server.url.replace("http:", "https:"), KEY, "train.py", b"x")


# --- asking -----------------------------------------------------------------------------------


def test_a_judged_submission_has_its_verdict_and_runs(server: Standin) -> None:
    server.answer = lambda asked: answered(200, submission())
    seen = status_of(server.url, 17)
    assert (seen.id, seen.author, seen.file_name, seen.season) == (17, "ada", "train.py", "autumn")
    assert seen.verdict is Verdict.ACCEPTED
    assert seen.run_mfus == (0.4, 0.42)
    assert seen.message == "the update is that of the reference"
    assert seen.over
    assert [event.text for event in seen.history] == ["train.py handed in", "evaluation 9 queued"]
    assert "Authorization" not in server.asked[0].headers
    assert [asked.path for asked in server.asked] == ["/api/v1/submissions/17"]


def test_one_that_waits_has_its_place_in_the_queue(server: Standin) -> None:
    waits = submission(state="queued", verdict=None, evaluations=[])
    entries = [{"position": place, "submission": 14 + place} for place in (0, 1, 2, 3, 4)]

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/api/v1/queue"):
            return answered(200, {"length": 4, "entries": entries})
        return answered(200, waits)

    server.answer = answer
    seen = status_of(server.url, 17)
    assert seen.position == 3
    assert not seen.over


def test_one_that_was_started_meanwhile_has_no_place(server: Standin) -> None:
    waits = submission(state="queued", verdict=None, evaluations=[])
    waits["entries"] = [{"position": 0, "submission": 17}]
    server.answer = lambda asked: answered(200, waits)
    assert status_of(server.url, 17).position is None


def test_one_that_waits_far_behind_has_no_place(server: Standin) -> None:
    waits = submission(state="queued", verdict=None, evaluations=[])
    waits["entries"] = []
    server.answer = lambda asked: answered(200, waits)
    assert status_of(server.url, 17).position is None


def test_one_that_runs_says_what_the_judge_says(server: Standin) -> None:
    failed = evaluation(verdict="error", code="worker_failed", message="ours", run_mfus=[])
    running = evaluation(
        id=10,
        state="running",
        verdict=None,
        code=None,
        message="",
        run_mfus=[],
        progress="\u00b7 loading the model\n\u00b7 timed run: 1 of 3\n\u00b7 tim",
    )
    runs = submission(state="running", verdict="error", evaluations=[failed, running])
    server.answer = lambda asked: answered(200, runs)
    seen = status_of(server.url, 17)
    # Half a line is none.
    assert seen.progress == ("\u00b7 loading the model", "\u00b7 timed run: 1 of 3")
    assert not seen.over
    assert seen.code == "worker_failed"


def test_what_a_server_says_moves_no_cursor(server: Standin) -> None:
    evil = "\x1b[2J\u202e"
    judged = submission(
        author=f"a{evil}",
        why=f"w{evil}",
        state=f"odd{evil}",
        evaluations=[evaluation(message=f"m{evil}\nx", code=f"c{evil}")],
        history=[{"id": 1, "text": f"t{evil}"}],
    )
    server.answer = lambda asked: answered(200, judged)
    seen = status_of(server.url, 17)
    assert seen.author == "a?[2J?"
    assert seen.why == "w\ufffd[2J\ufffd"
    assert seen.message == "m\ufffd[2J\ufffd\nx"
    assert seen.code == "c?[2J?"
    assert seen.history[0].text == "t\ufffd[2J\ufffd"
    # A state that we do not know is the end: nobody would know what to wait for.
    assert seen.over


def test_long_texts_are_cut(server: Standin) -> None:
    judged = submission(evaluations=[evaluation(message="x" * 100_000)])
    server.answer = lambda asked: answered(200, judged)
    assert len(status_of(server.url, 17).message) < 5_000


def test_what_a_newer_server_adds_is_passed_over(server: Standin) -> None:
    server.answer = lambda asked: answered(200, submission(more={"new": 1}))
    assert status_of(server.url, 17).id == 17


def test_an_unknown_number_is_the_callers_fault(server: Standin) -> None:
    said = {"code": "unknown_id", "message": "there is no submission 17"}
    server.answer = lambda asked: answered(404, said)
    with pytest.raises(InputError, match="there is no submission 17") as caught:
        status_of(server.url, 17)
    assert caught.value.code is Code.UNKNOWN_ID


def test_a_page_instead_of_an_answer_is_said_to_be_one(server: Standin) -> None:
    server.answer = lambda asked: HTML
    with pytest.raises(InputError, match="is this its address"):
        status_of(server.url, 17)


def test_a_status_that_breaks_off_says_nothing_of_a_file(server: Standin) -> None:
    server.answer = lambda asked: Answer(raw=b"")
    with pytest.raises(JudgeError) as caught:
        status_of(server.url, 17)
    assert "taken" not in caught.value.message


def test_a_submission_without_a_part_is_no_answer(server: Standin) -> None:
    whole = json.loads(json.dumps(submission()))
    del whole["evaluations"]
    server.answer = lambda asked: answered(200, whole)
    with pytest.raises(InputError, match="does not answer as a leaderboard does"):
        status_of(server.url, 17)
