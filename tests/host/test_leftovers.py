"""`validator clean` takes what nobody will come for, and nothing else."""

import tempfile
from pathlib import Path

import pytest

from harness.host.leftovers import clean_up


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_an_empty_cache_of_torch_is_removed(temporary: Path) -> None:
    cache = temporary / "torchinductor_judge"
    cache.mkdir()
    assert str(cache) in clean_up().removed
    assert not cache.exists()


def test_a_cache_of_torch_that_somebody_has_filled_stays(temporary: Path) -> None:
    compiled = temporary / "torchinductor_judge" / "kernel.py"
    compiled.parent.mkdir()
    compiled.touch()
    cleaned = clean_up()
    assert compiled.exists()
    assert str(compiled.parent) not in (*cleaned.removed, *cleaned.kept)


def test_what_only_has_the_name_of_a_cache_is_not_followed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / "torchinductor_judge").symlink_to(elsewhere)
    clean_up()
    assert elsewhere.is_dir()
