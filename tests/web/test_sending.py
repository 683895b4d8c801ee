"""The form: two steps, the key typed once, the very bytes that were looked at."""

import html
import re

import pytest
from starlette.testclient import TestClient

from harness.board.organise import close_season, revoke_keys
from harness.board.store import Store
from tests.board.examples import train_file
from tests.web.conftest import HOSTILE, words


def look(client: TestClient, key: str, source: bytes, note: str = "", name: str = "a.py") -> str:
    answer = client.post(
        "/submit/check",
        files={"file": (name, source)},
        data={"key": key, "season": "autumn", "note": note},
    )
    assert answer.status_code == 200, answer.text
    return answer.text


def hidden(page: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page)
    return {name: html.unescape(value) for name, value in found}


def test_remarks_are_shown_before_anything_is_sent(client: TestClient, key: str) -> None:
    page = look(client, key, train_file(1))
    assert "Ready to send" in words(page)
    assert "it parses" in words(page)
    assert client.get("/api/v1/queue").json()["length"] == 0


def test_the_very_bytes_are_sent(store: Store, client: TestClient, key: str) -> None:
    source = train_file(1).replace(b"\n", b"\r\n") + "# ünïcode  \n\n".encode()
    answer = client.post("/submit/send", data=hidden(look(client, key, source, note="hello")))
    assert answer.status_code == 303
    assert answer.headers["location"] == "/submissions/1"
    headers = {"Authorization": f"Bearer {key}"}
    assert client.get("/api/v1/submissions/1/source", headers=headers).content == source
    assert client.get("/api/v1/submissions/1").json()["note"] == "hello"


def test_the_key_stands_on_no_page(client: TestClient, key: str) -> None:
    assert key not in look(client, key, train_file(1))
    refused = client.post("/submit/check", data={"key": key, "season": "autumn"})
    assert refused.status_code == 422
    assert key not in refused.text


def test_a_file_with_problems_cannot_be_sent(client: TestClient, key: str) -> None:
    page = look(client, key, b"x = 1\n")
    assert "to mend" in words(page)
    assert hidden(page) == {}


@pytest.mark.parametrize("source", [b"\xff\xfe", b"\x00", b"def f(:", b"#" * (2**20 + 1)])
def test_whatever_file_is_chosen_there_is_an_answer(
    client: TestClient, key: str, source: bytes
) -> None:
    assert "to mend" in words(look(client, key, source))


def test_a_ticket_is_for_that_file_author_and_season_only(client: TestClient, key: str) -> None:
    from base64 import b64encode

    fields = hidden(look(client, key, train_file(1)))
    until, author, signature = fields["ticket"].split(".")
    forged = [
        {**fields, "source_base64": b64encode(train_file(2)).decode()},
        {**fields, "ticket": f"{until}.bob.{signature}"},
        {**fields, "ticket": f"{int(until) + 9}.{author}.{signature}"},
        {**fields, "ticket": ""},
        {**fields, "ticket": "é.alice.x"},
        {**fields, "season": "other"},
    ]
    for each in forged:
        assert client.post("/submit/send", data=each).status_code == 401
    assert client.get("/api/v1/queue").json()["length"] == 0


def test_an_old_ticket_is_refused(
    client: TestClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = hidden(look(client, key, train_file(1)))
    import time

    later = time.time() + 901
    monkeypatch.setattr("harness.web.tickets.time.time", lambda: later)
    assert client.post("/submit/send", data=fields).status_code == 401


@pytest.mark.parametrize("broken", ["", "!", "YQ"])
def test_a_form_that_lost_its_file_is_told_so(client: TestClient, key: str, broken: str) -> None:
    fields = hidden(look(client, key, train_file(1))) | {"source_base64": broken}
    answer = client.post("/submit/send", data=fields)
    assert answer.status_code in (401, 422)
    assert "Not taken" in words(answer.text)


def test_a_wrong_key_is_told_and_the_note_is_kept(client: TestClient, store: Store) -> None:
    answer = client.post(
        "/submit/check",
        files={"file": ("a.py", train_file(1))},
        data={"key": "tj_no", "season": "autumn", "note": "my words"},
    )
    assert answer.status_code == 401
    assert "Not taken" in words(answer.text)
    assert "my words" in answer.text


def test_a_revoked_key_is_told(client: TestClient, store: Store, key: str) -> None:
    revoke_keys(store, "alice")
    answer = client.post(
        "/submit/check",
        files={"file": ("a.py", train_file(1))},
        data={"key": key, "season": "autumn"},
    )
    assert answer.status_code == 401


def test_a_season_that_ends_between_the_steps_is_told(
    store: Store, client: TestClient, key: str
) -> None:
    fields = hidden(look(client, key, train_file(1)))
    close_season(store, "autumn")
    answer = client.post("/submit/send", data=fields)
    assert answer.status_code == 409
    assert "over" in words(answer.text)


def test_a_body_that_is_too_large_is_a_calm_page(client: TestClient, key: str) -> None:
    answer = client.post(
        "/submit/check", files={"file": ("a.py", b"#" * (3 * 2**20))}, data={"key": key}
    )
    assert answer.status_code == 413
    assert "Too large" in words(answer.text)


def test_hostile_names_and_notes_are_harmless_on_the_way(client: TestClient, key: str) -> None:
    page = look(client, key, train_file(1), note=HOSTILE, name="<script>alert(1).py")
    assert "<script>alert" not in page
    assert not set("\x1b\x00\u202e") & set(page)
    assert client.post("/submit/send", data=hidden(page)).status_code == 303
