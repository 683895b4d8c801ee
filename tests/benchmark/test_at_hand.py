"""Benchmarks by name, and what is said of them."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from harness.benchmark.at_hand import benchmarks, file_of
from harness.benchmark.hparams import LoadedHparams, load_hparams
from harness.benchmark.listing import list_benchmarks, render
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from tests.project import ROOT


def test_every_hparams_file_of_the_project_has_a_name_of_its_own() -> None:
    files = {ROOT / "hparams.json", *(ROOT / "profiles").glob("*.json")}
    assert set(benchmarks().values()) == files


def test_a_benchmark_is_named_as_its_results_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_hparams(Path("embedded-adamw")).hparams.name == "embedded-adamw"
    monkeypatch.setenv("TRAINJUDGE_HPARAMS", "embedded-bf16")
    assert load_hparams(None).hparams.name == "embedded-bf16"


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embedded-adamw").write_text("mine")
    assert file_of(Path("embedded-adamw")) == Path("embedded-adamw")


@pytest.mark.parametrize("path", ["missing.json", "folder/embedded-adamw", "/embedded-adamw"])
def test_what_can_only_be_a_path_is_one(path: str) -> None:
    assert file_of(Path(path)) == Path(path)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean embedded-adamw") as caught:
        load_hparams(Path("embeded-adamw"))
    assert caught.value.code is Code.BAD_ARGUMENT
    with pytest.raises(InputError, match="no benchmark 'nothing'; `validator benchmarks`"):
        load_hparams(Path("nothing"))


def test_the_list_says_what_is_asked_for_and_what_is_ready(
    loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    found = {each.name: each for each in list_benchmarks()}
    default = found["embedded-qwen3-moe"]
    assert default.default and [each.name for each in found.values() if each.default] == [
        default.name
    ]
    assert default.snapshot == snapshot.directory
    assert (default.ranks, default.device, default.batch) == (2, "cpu", "8 x 256")
    assert default.optimizer.startswith("SGD with lr 0.1")
    assert default.calibrated
    large = found["qwen3-30b-a3b"]
    assert (large.snapshot, large.calibrated, large.model) == (None, False, "Qwen/Qwen3-30B-A3B")


def test_names_are_whole_in_a_narrow_terminal(snapshot: Snapshot) -> None:
    printed = io.StringIO()
    Console(file=printed, width=60).print(render(list_benchmarks()))
    shown = printed.getvalue()
    assert max(map(len, shown.splitlines())) <= 60
    for name in benchmarks():
        assert re.search(rf"^{re.escape(name)}( \(default\))? *$", shown, re.M), shown
    assert "not calibrated: its tolerances are guesses" in shown
