"""A published folder is replaced as a whole, and nothing of somebody else's is lost."""

import threading
from pathlib import Path

import pytest

from harness.board import publish_target
from harness.board.publish import publish_to_folder
from harness.board.store import Store
from harness.errors import Code, InputError
from tests.board.examples import (
    accepted_result,
    judge_next,
    published_rows,
)

#: Of tests to which it does not matter where the events are.
one_database = pytest.mark.parametrize("database", ["sqlite"])


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
    assert [row["author"] for row in published_rows(site)] == ["ada", "bob"]
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
