"""A model is counted once, and again for anything that could change the count."""

import shutil
from pathlib import Path

import pytest

from harness.benchmark.model_config import load_config
from harness.benchmark.snapshot import Snapshot
from harness.host import known_parameters
from harness.host.known_parameters import KNOWN, parameters_of
from harness.score.flops import ParameterCount, count_parameters


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was really counted."""
    done: list[str] = []

    def count(config: object) -> ParameterCount:
        done.append("counted")
        return count_parameters(config)  # type: ignore[arg-type]

    monkeypatch.setattr(known_parameters, "count_parameters", count)
    monkeypatch.setenv("TRAINJUDGE_DATA", str(tmp_path / "data"))
    return done


def test_the_second_time_nothing_is_counted(counted: list[str], snapshot: Snapshot) -> None:
    first, second = parameters_of(snapshot.model_dir), parameters_of(snapshot.model_dir)
    assert first == second == count_parameters(load_config(str(snapshot.model_dir)))
    assert counted == ["counted"]


def test_another_config_or_other_code_is_counted_again(
    counted: list[str], snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = tmp_path / "model"
    shutil.copytree(snapshot.model_dir, wider)
    config = wider / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 2048', '"vocab_size": 4096'))
    assert parameters_of(wider).total > parameters_of(snapshot.model_dir).total
    assert len(counted) == 2
    monkeypatch.setattr(known_parameters, "version", lambda name: "of tomorrow")
    parameters_of(snapshot.model_dir)
    assert len(counted) == 3


@pytest.mark.parametrize("content", ["", "[]", '{"x": {"total": 1}}'])
def test_a_file_that_nobody_understands_is_made_anew(
    counted: list[str], snapshot: Snapshot, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "data" / KNOWN.file
    file.parent.mkdir()
    file.write_text(content)
    first = parameters_of(snapshot.model_dir)
    assert parameters_of(snapshot.model_dir) == first
    assert counted == ["counted"]


def test_a_folder_that_cannot_be_written_is_no_failure(
    counted: list[str], snapshot: Snapshot, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file")
    parameters_of(snapshot.model_dir)
    parameters_of(snapshot.model_dir)
    assert len(counted) == 2


def test_the_newest_are_kept(
    counted: list[str], snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_parameters, "MOST", 2)
    for made in ("a", "b", "c"):
        monkeypatch.setattr(known_parameters, "version", lambda name, made=made: made)
        parameters_of(snapshot.model_dir)
    assert len(KNOWN.read()) == 2
    parameters_of(snapshot.model_dir)
    assert len(counted) == 3
