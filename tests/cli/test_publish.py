"""`validator publish`: where to, and what is said of it."""

import csv
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.board.store import open_store
from harness.cli import publish, remote
from harness.errors import Code, InputError
from tests.board.examples import accepted_result, board_with, hand_in, judge_next

app = typer.Typer()
publish.add_to(app)
remote.add_to(app)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A board's folder with one accepted entry."""
    folder = tmp_path / "data"
    store = open_store(f"sqlite:///{folder / 'board.sqlite'}")
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, accepted_result())
    store.close()
    return folder


def test_a_site_looks_like_our_pages(data: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = CliRunner().invoke(app, ["publish", "--to", str(site), "--data", str(data)])
    assert done.exit_code == 0, done.output
    assert done.output == f"published to {site}\n"
    names = {each.name for each in site.iterdir() if not each.name.startswith(".")}
    assert names == {"index.html", "board.csv", "results.parquet", "README.md"}
    with (site / "board.csv").open(newline="") as file:
        assert [row["author"] for row in csv.DictReader(file)] == ["ada"]
    # One rule of the pages' own style.
    assert "color-scheme: light dark" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["hf://datasets/only-one", "s3://bucket/board"])
def test_a_target_that_we_cannot_write_to_is_refused(data: Path, target: str) -> None:
    done = CliRunner().invoke(app, ["publish", "--to", target, "--data", str(data)])
    assert isinstance(done.exception, InputError)
    assert done.exception.code is Code.BAD_ARGUMENT
    assert "hf://datasets/ORG/NAME" in done.exception.message
