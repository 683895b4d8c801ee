"""Temporary folders of sandboxes: whose they were is known when everybody who would remove them is dead."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.host.leftovers import clean_up
from harness.sandbox.scratch import left_scratch, make_scratch
from tests.project import ROOT


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_of_a_judge_that_lives_is_left_alone() -> None:
    folder = Path(make_scratch(None))
    assert left_scratch() == []
    assert folder.is_dir()


def test_the_folder_of_a_judge_that_was_killed_is_cleaned_up(temporary: Path) -> None:
    program = "from harness.sandbox.scratch import make_scratch; print(make_scratch(None))"
    made = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    folder = Path(made.stdout.strip())
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text("x")
    assert left_scratch() == [folder]
    assert str(folder) in clean_up().removed
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_it_belongs_to_the_user_of_the_sandbox() -> None:
    assert Path(make_scratch(60_000)).stat().st_uid == 60_000


@pytest.mark.parametrize(
    "name", ["trainjudge-tmp-x", "trainjudge-tmp-1-2-3", "trainjudge-tmp-1-2-x-y"]
)
def test_what_has_no_such_name_is_somebody_else_s(temporary: Path, name: str) -> None:
    (temporary / name).mkdir()
    assert left_scratch() == []


def test_a_link_in_its_place_is_not_followed(temporary: Path) -> None:
    (temporary / "trainjudge-tmp-1-2-3-abc").symlink_to("/usr")
    assert left_scratch() == []
