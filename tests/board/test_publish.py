"""Published files: they say what the board says, only what is public, and arrive whole or not at all."""

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from harness.board import events as ev
from harness.board.publish import publish_to_folder
from harness.board.store import Store
from harness.board.tables import Author
from tests.board.examples import (
    HARDWARE,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
    published_rows,
    train_file,
)

#: Of tests to which it does not matter where the events are.
one_database = pytest.mark.parametrize("database", ["sqlite"])

NASTY = '=1+1|<script>alert("x")</script>\n| **b** `c` | "d" |'


# --- what is written --------------------------------------------------------------------------


def test_the_csv_has_the_board_in_the_order_of_ranks(full: Store, tmp_path: Path) -> None:
    publish_to_folder(full, tmp_path / "site", "")
    rows = published_rows(tmp_path / "site")
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
def test_every_season_has_itspublished_rows(full: Store, tmp_path: Path) -> None:
    board_with(full, season="winter")
    publish_to_folder(full, tmp_path / "site", "")
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.index("winter") < page.index("autumn")
    assert page.count("Nothing is ranked yet.") == 1
    assert {row["season"] for row in published_rows(tmp_path / "site")} == {"autumn"}


@one_database
def test_a_store_without_a_season_can_be_published(store: Store, tmp_path: Path) -> None:
    publish_to_folder(store, tmp_path / "site", "")
    assert "There is no season yet." in (tmp_path / "site" / "index.html").read_text()
    assert len(pd.read_parquet(tmp_path / "site" / "results.parquet")) == 0
    assert published_rows(tmp_path / "site") == []


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
    (row,) = published_rows(tmp_path / "site")
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
    assert published_rows(tmp_path / "site")[0]["author"] == f"'{begins}cmd"


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
