"""Published files: they say what the board says, only what is public, and arrive whole or not at all."""

import base64
import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pytest

from harness.board import events as ev
from harness.board import publish_target
from harness.board.publish import publish_to_folder, publish_to_hub
from harness.board.publish_target import data_set_name
from harness.board.store import Store
from harness.board.tables import Author
from harness.errors import Code, InputError, JudgeError
from tests.board.examples import (
    HARDWARE,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)
from tests.http_standin import serving, url_of

#: Of tests to which it does not matter where the events are.
one_database = pytest.mark.parametrize("database", ["sqlite"])

TOKEN = "hf_a-token-that-nobody-may-see"
NASTY = '=1+1|<script>alert("x")</script>\n| **b** `c` | "d" |'


@pytest.fixture
def full(store: Store) -> Store:
    """Two that are ranked, bob first; one of carol that was rejected; one of ada that waits."""
    board_with(store, "ada", "bob", "carol")
    for author, number in (("ada", 1), ("bob", 2), ("carol", 3)):
        hand_in(store, author, number, note=f"a note of {author}")
    results = {
        1: accepted_result((0.30, 0.32, 0.31)),
        2: accepted_result((0.40, 0.42, 0.41)),
        3: rejected_result(),
    }
    for number, result in results.items():
        assert judge_next(store, result) == number
    hand_in(store, "ada", 4)
    return store


def _board(folder: Path) -> list[dict[str, str]]:
    with (folder / "board.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- what is written --------------------------------------------------------------------------


def test_the_csv_has_the_board_in_the_order_of_ranks(full: Store, tmp_path: Path) -> None:
    publish_to_folder(full, tmp_path / "site", "")
    rows = _board(tmp_path / "site")
    assert [(row["rank"], row["author"], row["mfu"]) for row in rows] == [
        ("1", "bob", "0.410000"),
        ("2", "ada", "0.310000"),
    ]
    assert rows[0]["slowest"] == "0.400000"
    assert rows[0]["fastest"] == "0.420000"
    assert rows[0]["strategy"] == "dp 2"
    assert rows[0]["hardware"] == HARDWARE
    assert rows[0]["handed_in_utc"].endswith("Z")


def test_the_parquet_has_a_row_for_each_evaluation(full: Store, tmp_path: Path) -> None:
    publish_to_folder(full, tmp_path / "site", "")
    frame = pd.read_parquet(tmp_path / "site" / "results.parquet").set_index("submission")
    assert list(frame["author"]) == ["ada", "bob", "carol", "ada"]
    assert list(frame["state"]) == ["finished", "finished", "finished", "queued"]
    assert list(frame["season"]) == ["autumn"] * 4
    assert frame.loc[1, "verdict"] == "accepted"
    assert frame.loc[3, "verdict"] == "rejected"
    assert frame.loc[3, "code"] == "update_mismatch"
    assert list(frame.loc[1, "run_mfus"]) == pytest.approx([0.30, 0.32, 0.31])
    assert list(frame.loc[2, "run_mfus"]) == pytest.approx([0.40, 0.42, 0.41])
    assert list(frame.loc[3, "run_mfus"]) == []
    assert frame.loc[2, "score"] == pytest.approx(0.41)
    assert list(frame["rank"].fillna(0)) == [2, 1, 0, 0]
    assert frame.loc[3, "why_not"] == "rejected"
    assert frame.loc[2, "isolation"] == "docker"
    assert pd.isna(frame.loc[4, "verdict"])
    assert pd.isna(frame.loc[4, "score"])


def test_times_are_timestamps_in_utc(full: Store, tmp_path: Path) -> None:
    before = pd.Timestamp.now("UTC") - pd.Timedelta(minutes=10)
    publish_to_folder(full, tmp_path / "site", "")
    frame = pd.read_parquet(tmp_path / "site" / "results.parquet")
    for column in ("handed_in_at", "queued_at", "started_at", "finished_at"):
        assert str(frame[column].dt.tz) == "UTC"
        assert (frame[column].dropna() > before).all()
        assert (frame[column].dropna() <= pd.Timestamp.now("UTC")).all()
    assert frame["finished_at"].isna().tolist() == [False, False, False, True]


def test_many_evaluations_are_written_a_batch_at_a_time(
    full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.board.publish_data.ROWS_AT_ONCE", 3)
    publish_to_folder(full, tmp_path / "site", "")
    frame = pd.read_parquet(tmp_path / "site" / "results.parquet")
    assert list(frame["evaluation"]) == [1, 2, 3, 4]
    assert list(frame["run_mfus"].map(len)) == [3, 3, 0, 0]


@one_database
def test_sources_notes_keys_and_workers_are_not_published(full: Store, tmp_path: Path) -> None:
    publish_to_folder(full, tmp_path / "site", "")
    secrets = (b"a note of", b"inner_steps", b"tj_", b"elsewhere", b"machine-1", train_file(1))
    for file in (tmp_path / "site").iterdir():
        content = file.read_bytes()
        for secret in secrets:
            assert secret not in content, (file.name, secret)
    # Compressed, they would not be found as bytes.
    frame = pd.read_parquet(tmp_path / "site" / "results.parquet")
    shown = frame.to_csv()
    for secret in secrets:
        assert secret.decode() not in shown


@one_database
def test_the_readme_is_a_card_with_the_board_as_a_table(full: Store, tmp_path: Path) -> None:
    publish_to_folder(full, tmp_path / "site", "")
    text = (tmp_path / "site" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    header = text.split("---\n")[1]
    assert "data_files: results.parquet" in header
    rows = [line for line in text.splitlines() if line.startswith(("| 1 ", "| 2 "))]
    assert rows[0].startswith("| 1 | bob | 41.00 % | 40.00 % | 42.00 % | 3 | dp 2 | 2 |")
    assert rows[1].startswith("| 2 | ada | 31.00 % |")
    assert "| `run_mfus` | list of double |" in text
    assert "| `finished_at` | timestamp, UTC |" in text


@one_database
def test_the_page_shows_the_board_and_needs_nothing_else(full: Store, tmp_path: Path) -> None:
    publish_to_folder(full, tmp_path / "site", "body { color: teal }")
    page = _Page((tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    assert page.text.index("bob") < page.text.index("ada")
    assert "41.00 %" in page.text
    # One leads, and has since it was handed in.
    assert page.text.count(" leads") == 1
    assert page.text.index(" leads") < page.text.index("ada")
    assert "body { color: teal }" in page.text
    assert "script" not in page.tags
    assert page.links == {"#main", "board.csv", "results.parquet"}


@one_database
def test_an_unchanged_store_gives_the_same_files(full: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        publish_to_folder(full, tmp_path / name, "")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


@one_database
def test_every_season_has_its_board(full: Store, tmp_path: Path) -> None:
    board_with(full, season="winter")
    publish_to_folder(full, tmp_path / "site", "")
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.index("winter") < page.index("autumn")
    assert page.count("Nothing is ranked yet.") == 1
    assert {row["season"] for row in _board(tmp_path / "site")} == {"autumn"}


@one_database
def test_a_store_without_a_season_can_be_published(store: Store, tmp_path: Path) -> None:
    publish_to_folder(store, tmp_path / "site", "")
    assert "There is no season yet." in (tmp_path / "site" / "index.html").read_text()
    assert len(pd.read_parquet(tmp_path / "site" / "results.parquet")) == 0
    assert _board(tmp_path / "site") == []


# --- what came from outside -------------------------------------------------------------------


@pytest.fixture
def nasty(store: Store) -> Store:
    """The leader's name is markup, a formula and several cells."""
    board_with(store)
    with store.write() as writer:
        writer.append(ev.AuthorAdded(author=writer.next_id(Author), name=NASTY))
    hand_in(store, NASTY)
    judge_next(store, accepted_result((0.4, 0.4, 0.4)))
    return store


@one_database
def test_markup_in_a_name_is_text_on_the_page(nasty: Store, tmp_path: Path) -> None:
    publish_to_folder(nasty, tmp_path / "site", "")
    page = _Page((tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert '<script>alert("x")</script>' in page.text


@one_database
def test_a_name_is_one_cell_of_the_readme_and_no_markup(nasty: Store, tmp_path: Path) -> None:
    publish_to_folder(nasty, tmp_path / "site", "")
    text = (tmp_path / "site" / "README.md").read_text(encoding="utf-8")
    assert "<script" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 1 ")]
    name = row.split(" | ")[1]
    assert name == (
        r"=1+1\|&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;?\| \*\*b\*\* \`c\` \| &quot;d&quot; \|"
    )


@one_database
def test_a_formula_in_a_name_is_text_to_a_spreadsheet(nasty: Store, tmp_path: Path) -> None:
    publish_to_folder(nasty, tmp_path / "site", "")
    (row,) = _board(tmp_path / "site")
    assert row["author"].startswith("'=1+1|<script>")
    assert "\n" not in row["author"]
    assert row["rank"] == "1"


@one_database
@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "  =", "＝"])
def test_whatever_begins_a_formula_gets_an_apostrophe(
    store: Store, tmp_path: Path, begins: str
) -> None:
    board_with(store)
    with store.write() as writer:
        writer.append(ev.AuthorAdded(author=writer.next_id(Author), name=f"{begins}cmd"))
    hand_in(store, f"{begins}cmd")
    judge_next(store, accepted_result())
    publish_to_folder(store, tmp_path / "site", "")
    assert _board(tmp_path / "site")[0]["author"] == f"'{begins}cmd"


class _Page(HTMLParser):
    """Tags, links and text of a page, as a browser would take them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("href", "src"):
                self.links.add(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


# --- a folder ---------------------------------------------------------------------------------


@one_database
def test_a_published_folder_is_replaced_and_nothing_is_left_beside_it(
    full: Store, tmp_path: Path
) -> None:
    site = tmp_path / "out" / "site"
    site.parent.mkdir()
    publish_to_folder(full, site, "")
    # Bob took the lead with a jump of a third, so another one is needed.
    judge_next(full, accepted_result((0.9, 0.9, 0.9)))
    publish_to_folder(full, site, "")
    assert [row["author"] for row in _board(site)] == ["ada", "bob"]
    assert [each.name for each in site.parent.iterdir()] == ["site"]


@one_database
def test_where_names_cannot_be_exchanged_the_folder_is_replaced_all_the_same(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "plan9")
    site = tmp_path / "out" / "site"
    site.parent.mkdir()
    for style in ("one", "two"):
        publish_to_folder(store, site, style)
    assert "<style>two</style>" in (site / "index.html").read_text()
    assert [each.name for each in site.parent.iterdir()] == ["site"]


@one_database
def test_a_reader_finds_the_old_folder_until_the_new_one_is_whole(
    store: Store, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    publish_to_folder(store, site, "old")
    missing: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for name in ("index.html", "results.parquet", "board.csv", "README.md"):
                if not (site / name).is_file():
                    missing.append(name)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(10):
        publish_to_folder(store, site, f"new {number}")
    over.set()
    reader.join()
    assert missing == []


def test_a_failure_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    site = tmp_path / "out" / "site"
    site.parent.mkdir()
    publish_target.replace_folder(site, ("a",), lambda folder: _write(folder / "a", "old"))

    def breaks(folder: Path) -> None:
        _write(folder / "a", "new")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device") as caught:
        publish_target.replace_folder(site, ("a",), breaks)
    assert caught.value.code is Code.BAD_ARGUMENT
    assert (site / "a").read_text() == "old"
    assert [each.name for each in site.parent.iterdir()] == ["site"]


def _write(path: Path, text: str) -> None:
    path.write_text(text)


@one_database
def test_everybody_may_read_what_is_published(store: Store, tmp_path: Path) -> None:
    publish_to_folder(store, tmp_path / "site", "")
    assert (tmp_path / "site").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "site" / "results.parquet").stat().st_mode & 0o777 == 0o644


@one_database
@pytest.mark.parametrize("there", ["folder", "empty", "file", "link"])
def test_what_was_not_published_is_not_replaced(store: Store, tmp_path: Path, there: str) -> None:
    site = tmp_path / "site"
    if there in ("folder", "empty"):
        site.mkdir()
    if there == "folder":
        (site / "README.md").write_text("mine")
    if there == "file":
        site.write_text("mine")
    if there == "link":
        publish_to_folder(store, tmp_path / "real", "")
        site.symlink_to("real")
    with pytest.raises(InputError) as caught:
        publish_to_folder(store, site, "")
    assert caught.value.code is Code.BAD_ARGUMENT
    if there == "folder":
        assert (site / "README.md").read_text() == "mine"
    if there == "file":
        assert site.read_text() == "mine"
    if there == "link":
        assert site.is_symlink()


@one_database
def test_a_file_of_somebody_else_in_a_published_folder_is_not_lost(
    store: Store, tmp_path: Path
) -> None:
    publish_to_folder(store, tmp_path / "site", "")
    (tmp_path / "site" / "CNAME").write_text("board.example.org")
    with pytest.raises(InputError, match="CNAME"):
        publish_to_folder(store, tmp_path / "site", "")
    assert (tmp_path / "site" / "CNAME").read_text() == "board.example.org"


@one_database
def test_a_folder_in_no_folder_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        publish_to_folder(store, tmp_path / "none" / "site", "")


# --- the hub ----------------------------------------------------------------------------------


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
