"""Published to the hub: a stand-in that speaks HTTP takes the commit, refuses the token, or fails."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pytest

from harness.board.publish import publish_to_folder, publish_to_hub
from harness.board.publish_target import data_set_name
from harness.board.store import Store
from harness.errors import Code, InputError, JudgeError
from tests.http_standin import serving, url_of

#: Of tests to which it does not matter where the events are.
one_database = pytest.mark.parametrize("database", ["sqlite"])

TOKEN = "hf_a-token-that-nobody-may-see"


@dataclass
class _Hub:
    """What arrived at the stand-in. `refuses`: path's beginning to the status that answers it."""

    url: str = ""
    token: str = TOKEN
    created: list[dict[str, object]] = field(default_factory=list)
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    refuses: dict[str, int] = field(default_factory=dict)
    exists: bool = False


class _HubHandler(BaseHTTPRequestHandler):
    """The endpoints that `huggingface_hub` calls for a commit; all files go the regular way."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(404, {"error": "Repository not found"})

    def do_POST(self) -> None:
        hub: _Hub = self.server.hub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        for begins, status in hub.refuses.items():
            if path.startswith(begins):
                return self._send(status, {"error": "refused"})
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            hub.created.append(json.loads(body))
            status = 409 if hub.exists else 200
            return self._send(status, {"url": f"{hub.url}/datasets/my-org/board"})
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/datasets/my-org/board/preupload/main":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._send(200, {"files": modes})
        if path == "/api/datasets/my-org/board/commit/main":
            lines = [json.loads(line) for line in body.splitlines()]
            summary = lines[0]["value"]["summary"]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines[1:]
            }
            assert [line["key"] for line in lines] == ["header"] + ["file"] * len(files)
            hub.commits.append((summary, files))
            address = f"{hub.url}/datasets/my-org/board/commit/{'1' * 40}"
            return self._send(200, {"commitUrl": address, "commitOid": "1" * 40})
        return self._send(404, {"error": f"nothing at {path}"})

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def _serving() -> Iterator[_Hub]:
    with serving(_HubHandler) as server:
        hub = _Hub(url=url_of(server))
        server.hub = hub  # type: ignore[attr-defined]
        yield hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Hub]:
    with _serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@one_database
def test_a_data_set_gets_the_same_files_as_a_folder_in_one_commit(
    full: Store, hub: _Hub, tmp_path: Path
) -> None:
    address = publish_to_hub(full, "my-org/board", TOKEN)
    assert address == f"{hub.url}/datasets/my-org/board"
    publish_to_folder(full, tmp_path / "site", "")
    ((summary, files),) = hub.commits
    assert set(files) == {"README.md", "board.csv", "results.parquet"}
    for name, content in files.items():
        assert content == (tmp_path / "site" / name).read_bytes(), name
    assert summary == f"The board after event {full.last_event()}"
    (tmp_path / "arrived.parquet").write_bytes(files["results.parquet"])
    frame = pd.read_parquet(tmp_path / "arrived.parquet")
    assert list(frame["author"]) == ["ada", "bob", "carol", "ada"]
    assert hub.created == [{"name": "board", "organization": "my-org", "type": "dataset"}]


@one_database
def test_a_data_set_that_is_there_gets_a_commit(store: Store, hub: _Hub) -> None:
    hub.exists = True
    publish_to_hub(store, "my-org/board", TOKEN)
    assert len(hub.commits) == 1


@one_database
def test_blanks_around_a_token_do_not_matter(store: Store, hub: _Hub) -> None:
    publish_to_hub(store, "my-org/board", f"{TOKEN}\n")
    assert len(hub.commits) == 1


@one_database
@pytest.mark.parametrize("at", ["/api/repos", "/api/datasets/my-org/board/commit"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_write_is_said_to_be_the_cause(
    store: Store, hub: _Hub, at: str, status: int
) -> None:
    hub.refuses[at] = status
    with pytest.raises(InputError, match="HF_TOKEN to a token that may write for my-org") as caught:
        publish_to_hub(store, "my-org/board", TOKEN)
    assert caught.value.code is Code.DOWNLOAD_FAILED
    assert TOKEN not in caught.value.message + caught.value.detail
    assert hub.commits == []


@one_database
def test_a_wrong_token_is_the_callers_fault(store: Store, hub: _Hub) -> None:
    with pytest.raises(InputError, match="HF_TOKEN"):
        publish_to_hub(store, "my-org/board", "hf_wrong")


@one_database
def test_a_token_that_is_no_header_is_not_shown(store: Store, hub: _Hub) -> None:
    with pytest.raises(InputError, match="is no token") as caught:
        publish_to_hub(store, "my-org/board", "hf_first\nhf_second")
    assert "hf_second" not in caught.value.message + caught.value.detail
    assert hub.created == []


@one_database
@pytest.mark.parametrize("at", ["/api/repos", "/api/datasets/my-org/board/commit"])
def test_a_hub_that_fails_is_not_the_callers_fault(store: Store, hub: _Hub, at: str) -> None:
    hub.refuses[at] = 500
    with pytest.raises(JudgeError, match="cannot publish to the data set my-org/board") as caught:
        publish_to_hub(store, "my-org/board", TOKEN)
    assert caught.value.code is Code.DOWNLOAD_FAILED


@one_database
def test_a_hub_that_cannot_be_reached_is_not_the_callers_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _serving() as gone:
        pass
    monkeypatch.setenv("HF_ENDPOINT", gone.url)
    with pytest.raises(JudgeError, match="cannot publish") as caught:
        publish_to_hub(store, "my-org/board", TOKEN)
    assert caught.value.code is Code.DOWNLOAD_FAILED


@pytest.mark.parametrize(
    "target",
    [
        "hf://datasets/only",
        "hf://models/my-org/board",
        "hf://datasets/my-org/board/more",
        "hf://datasets/my org/board",
        "hf://datasets/my-org/board@main",
    ],
)
def test_what_names_no_data_set_is_refused(target: str) -> None:
    with pytest.raises(InputError, match="hf://datasets/ORG/NAME would be one"):
        data_set_name(target)


def test_a_data_set_is_named_by_its_address() -> None:
    assert data_set_name("hf://datasets/my-org/the.board_1") == "my-org/the.board_1"


@one_database
def test_a_name_that_the_hub_cannot_have_is_refused(store: Store, hub: _Hub) -> None:
    with pytest.raises(InputError, match="is no name of a data set") as caught:
        publish_to_hub(store, "my-org/a..b", TOKEN)
    assert caught.value.code is Code.BAD_ARGUMENT
