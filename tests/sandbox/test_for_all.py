"""Folders that everybody may write to are found wherever a machine has them."""

from pathlib import Path

import pytest

from harness.sandbox.for_all import DEPTH, folders_for_all


def made(top: Path, name: str, mode: int) -> Path:
    folder = top / name
    folder.mkdir(parents=True)
    folder.chmod(mode)
    return folder


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return made(tmp_path, "top", 0o755)


def test_those_that_everybody_may_write_to_are_found_at_every_depth(top: Path) -> None:
    shallow = made(top, "tmp", 0o1777)
    deep = made(top, "/".join(["a"] * (DEPTH - 1) + ["lock"]), 0o777)
    made(top, "etc", 0o755)
    made(top, "group", 0o775)
    made(top, "/".join(["b"] * DEPTH + ["lock"]), 0o777)
    assert set(folders_for_all(str(top))) == {str(shallow), str(deep)}


def test_what_others_may_not_enter_is_not_looked_into(top: Path) -> None:
    closed = made(top, "root", 0o755)
    made(closed, "tmp", 0o777)
    closed.chmod(0o750)
    made(top, "listed", 0o776)
    assert list(folders_for_all(str(top))) == []


def test_what_a_sandbox_could_fill_and_where_links_lead_takes_no_time(top: Path) -> None:
    shared = made(top, "tmp", 0o1777)
    made(shared, "below", 0o777)
    (top / "link").symlink_to(shared)
    (top / "round").symlink_to(top)
    assert list(folders_for_all(str(top))) == [str(shared)]


def test_a_folder_that_is_gone_is_none() -> None:
    assert list(folders_for_all("/nowhere/at/all")) == []
