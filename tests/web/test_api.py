"""The API: handing in and looking, and a clear answer to everything that is wrong."""

import asyncio
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from harness.board.organise import close_season, new_key, revoke_keys
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.errors import Code, InputError, JudgeError, SubmissionError, TrainjudgeError
from harness.web.app import make_app
from harness.web.body import read_body
from harness.web.problems import RequestError, status_of
from tests.board.examples import accepted_result, board_with, hand_in, judge_next, train_file
from tests.web.conftest import Server

MIB = 2**20


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_file_is_handed_in_as_it_is(client: TestClient, key: str) -> None:
    answer = client.post(
        "/api/v1/submissions?name=fast.py&note=faster", content=train_file(1), headers=bearer(key)
    )
    assert answer.status_code == 201
    assert answer.json() == {"id": 1, "url": "http://testserver/submissions/1", "position": 1}
    seen = client.get("/api/v1/submissions/1").json()
    assert (seen["author"], seen["file_name"], seen["note"]) == ("alice", "fast.py", "faster")
    assert seen["state"] == "queued"


def test_a_file_is_handed_in_by_a_form(client: TestClient, key: str) -> None:
    answer = client.post(
        "/api/v1/submissions",
        files={"file": ("../../x/fast.py", train_file(1), "text/x-python")},
        data={"note": "n", "season": "autumn"},
        headers=bearer(key),
    )
    assert answer.status_code == 201
    seen = client.get("/api/v1/submissions/1").json()
    assert (seen["file_name"], seen["note"], seen["season"]) == ("fast.py", "n", "autumn")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer tj_wrong", "Basic eDp5", "Bearer " + "x" * 5_000],
)
def test_a_key_that_is_missing_or_wrong_is_refused(client: TestClient, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = client.post("/api/v1/submissions", content=train_file(1), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["code"] == "key_refused"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_revoked_key_is_refused(store: Store, client: TestClient, key: str) -> None:
    revoke_keys(store, "alice")
    answer = client.post("/api/v1/submissions", content=train_file(1), headers=bearer(key))
    assert answer.status_code == 401
    assert "revoked" in answer.json()["message"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"", "file_unreadable"),
        (b" \n", "file_unreadable"),
        (b"\x7fELF\x00\x01", "file_unreadable"),
        (b"x = '\xff\xfe'", "file_unreadable"),
        (b"def inner_steps(:", "syntax_error"),
        (b"x = 1", "no_inner_steps"),
        (train_file(1).replace(b"2", b"64"), "strategy_world_mismatch"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(
    client: TestClient, key: str, source: bytes, code: str
) -> None:
    answer = client.post("/api/v1/submissions", content=source, headers=bearer(key))
    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert client.get("/api/v1/queue").json()["length"] == 0


def test_a_file_that_says_it_is_too_large_is_refused_unread(client: TestClient, key: str) -> None:
    answer = client.post(
        "/api/v1/submissions",
        content=b"#",
        headers={**bearer(key), "Content-Length": str(5 * MIB)},
    )
    assert answer.status_code == 413
    assert answer.json()["code"] == "file_too_large"


def test_a_body_without_length_is_read_up_to_the_limit(client: TestClient, key: str) -> None:
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        while given < 64 * MIB:
            given += MIB // 4
            yield b"#" * (MIB // 4)

    answer = client.post("/api/v1/submissions", content=endless(), headers=bearer(key))
    assert answer.status_code == 413
    assert answer.json()["code"] == "file_too_large"


def test_a_real_server_stops_reading_a_body_without_length(server: Server, key: str) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/api/v1/submissions")
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"10000\r\n" + b"#" * 0x10000 + b"\r\n"
    sent = 0
    try:
        while sent < 256 * MIB:
            connection.send(chunk)
            sent += 0x10000
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < 64 * MIB


def test_a_file_just_too_large_is_named_so(client: TestClient, key: str) -> None:
    source = train_file(1) + b"#" * MIB
    answer = client.post("/api/v1/submissions", content=source, headers=bearer(key))
    assert answer.status_code == 413
    assert answer.json()["code"] == "file_too_large"


def test_a_body_that_does_not_come_to_an_end_is_given_up() -> None:
    async def stalled() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    scope = {"type": "http", "method": "POST", "headers": []}
    with pytest.raises(RequestError) as refused:
        asyncio.run(read_body(Request(scope, stalled), 100, seconds=0.05))
    assert refused.value.status == 408


def test_a_client_that_goes_away_leaves_nothing(server: Server, store: Store, key: str) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/api/v1/submissions")
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(train_file(1))
    connection.close()
    other = server.connect()
    other.request("GET", "/api/v1/queue")
    assert b'"length":0' in other.getresponse().read()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno end"),
        ("multipart/form-data; boundary=x", b"\xff" * 100),
        (
            "multipart/form-data; boundary=x",
            b"".join(
                b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n1\r\n' % number
                for number in range(50)
            )
            + b"--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x; charset=klingon",
            b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n\xff\r\n--x--\r\n',
        ),
    ],
)
def test_a_broken_form_is_the_senders_fault(
    client: TestClient, key: str, kind: str, body: bytes
) -> None:
    headers = {**bearer(key), "Content-Type": kind}
    answer = client.post("/api/v1/submissions", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"code", "message"}


def test_a_season_that_is_over_takes_nothing(store: Store, client: TestClient, key: str) -> None:
    close_season(store, "autumn")
    answer = client.post("/api/v1/submissions", content=train_file(1), headers=bearer(key))
    assert (answer.status_code, answer.json()["code"]) == (409, "not_now")


def test_too_many_a_day_are_told_when_to_come_back(empty: Store) -> None:
    board_with(empty, "alice", rule=ScoringRule(submissions_per_day=1))
    client, key = TestClient(make_app(empty)), new_key(empty, "alice")
    sent = [
        client.post("/api/v1/submissions", content=train_file(number), headers=bearer(key))
        for number in (1, 2)
    ]
    assert [answer.status_code for answer in sent] == [201, 429]
    assert sent[1].json()["code"] == "rate_limited"
    assert 86_000 < int(sent[1].headers["retry-after"]) <= 86_401


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/api/v1/submissions/5", 404),
        ("/api/v1/submissions/" + "9" * 30, 404),
        ("/api/v1/submissions/" + "9" * 5_000, 400),
        ("/api/v1/submissions/x", 400),
        ("/api/v1/submissions/5/source", 404),
        ("/api/v1/evaluations/5", 404),
        ("/api/v1/evaluations/-5", 404),
        ("/api/v1/authors/nobody", 404),
        ("/api/v1/board?season=winter", 404),
        ("/api/v1/board?sort=drop", 400),
        ("/api/v1/board?page=0", 400),
        ("/api/v1/events?after=-1", 400),
        ("/api/v1/nothing", 404),
        ("/api/v2/board", 404),
    ],
)
def test_a_wrong_address_is_answered_in_json(client: TestClient, address: str, status: int) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message"}


def test_a_wrong_method_is_answered_in_json(client: TestClient) -> None:
    answer = client.delete("/api/v1/submissions/1")
    assert answer.status_code == 405
    assert answer.json()["code"] == "wrong_method"


def test_only_its_author_takes_a_submission_back(
    store: Store, client: TestClient, key: str
) -> None:
    hand_in(store, "alice")
    address = "/api/v1/submissions/1/cancel"
    assert client.post(address).status_code == 401
    assert client.post(address, headers=bearer(new_key(store, "bob"))).status_code == 404
    assert client.post(address, headers=bearer(key)).json()["state"] == "cancelled"
    assert client.post(address, headers=bearer(key)).status_code == 409


def test_a_source_is_its_authors_until_it_is_judged(
    store: Store, client: TestClient, key: str
) -> None:
    hand_in(store, "alice")
    address = "/api/v1/submissions/1/source"
    assert client.get(address).status_code == 409
    assert client.get(address, headers=bearer(new_key(store, "bob"))).status_code == 409
    assert client.get(address, headers=bearer("tj_wrong")).status_code == 401
    assert client.get(address, headers=bearer(key)).content == train_file(1)
    judge_next(store, accepted_result())
    assert client.get(address).content == train_file(1)


def test_the_whole_result_is_there_once_it_is(store: Store, client: TestClient) -> None:
    hand_in(store, "alice")
    assert client.get("/api/v1/evaluations/1").status_code == 409
    result = accepted_result()
    judge_next(store, result)
    assert client.get("/api/v1/evaluations/1").json() == result.model_dump(mode="json")


def test_the_board_and_its_records_are_the_pages(store: Store, client: TestClient) -> None:
    for author, number, mfu in (("alice", 1, 0.3), ("bob", 2, 0.4)):
        hand_in(store, author, number)
        judge_next(store, accepted_result((mfu,)))
    board = client.get("/api/v1/board").json()
    assert [(row["rank"], row["author"], row["score"]) for row in board["rows"]] == [
        (1, "bob", 0.4),
        (2, "alice", 0.3),
    ]
    assert board["leader"] == 2
    records = client.get("/api/v1/records").json()
    assert [row["author"] for row in records] == ["alice", "bob"]


def test_events_are_told_without_keys(store: Store, client: TestClient) -> None:
    hand_in(store, "alice")
    lines = client.get("/api/v1/events").json()
    kinds = [line["kind"] for line in lines]
    assert "submitted" in kinds
    assert not {"key_issued", "key_revoked"} & set(kinds)
    assert "sha256" not in str(lines)
    rest = client.get("/api/v1/events", params={"after": lines[0]["id"]}).json()
    assert rest == lines[1:]


def test_remarks_come_without_handing_in(client: TestClient, key: str) -> None:
    bad = client.post("/api/v1/check", content=b"x = 1", headers=bearer(key)).json()
    assert bad["ok"] is False
    assert "no_inner_steps" in [remark["code"] for remark in bad["remarks"]]
    assert client.post("/api/v1/check", content=train_file(1), headers=bearer(key)).json()["ok"]
    assert client.post("/api/v1/check", content=train_file(1)).status_code == 401
    assert client.get("/api/v1/queue").json()["length"] == 0


def test_check_knows_the_rows_of_a_benchmark_that_is_here(store: Store, key: str) -> None:
    from tests.board.examples import HPARAMS_SHA256

    client = TestClient(make_app(store, global_batches={HPARAMS_SHA256: 7}))
    told = client.post("/api/v1/check", content=train_file(1), headers=bearer(key)).json()
    assert [r["code"] for r in told["remarks"] if r["kind"] == "problem"] == ["strategy_invalid"]


def test_a_store_that_fails_is_our_failure_and_says_when_to_come_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    def full() -> None:
        raise JudgeError(Code.STORE_FAILED, "the store failed (disk full)")

    monkeypatch.setattr(store, "read", full)
    answer = client.get("/api/v1/queue")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_failed")
    assert answer.headers["retry-after"] == "10"
    assert client.get("/queue").status_code == 503


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SubmissionError(Code.SYNTAX_ERROR, ""), 422),
        (SubmissionError(Code.FILE_TOO_LARGE, ""), 413),
        (InputError(Code.BAD_ARGUMENT, ""), 400),
        (InputError(Code.STORE_NEWER, ""), 503),
        (JudgeError(Code.INTERNAL, ""), 500),
    ],
)
def test_the_status_says_whose_fault_it_is(error: TrainjudgeError, status: int) -> None:
    assert status_of(error) == status
