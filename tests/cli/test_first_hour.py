"""What somebody meets who has never used it: the way to a first verdict, and the stones beside it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.submission.example import strategies
from harness.submission.read import read
from tests.cli.test_commands import validator
from tests.project import ROOT


def test_the_version_is_said() -> None:
    done = validator("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"trainjudge \d+\.\d+\.\d+\S*\n", done.stdout)


def test_a_train_file_is_started_and_what_comes_next_is_said(tmp_path: Path) -> None:
    done = validator("init", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "mine" / "train.py"
    assert file.read_bytes() == (ROOT / "submissions" / "train_ddp.py").read_bytes()
    assert f"validator run {file}\n" in done.stdout  # the benchmark's ranks: no option is needed
    assert str(ROOT / "submissions" / "README.md") in done.stdout
    checked = validator("check", file)
    assert "nothing to mend" in checked.stdout, checked.stdout


def test_the_commands_that_are_named_fit_the_strategy_and_the_benchmark(tmp_path: Path) -> None:
    options = ("--strategy", "fsdp_tp", "--hparams", "embedded-adamw")
    done = validator("init", tmp_path / "mine", *options)
    assert "train_fsdp_tp.py, for 4 ranks" in done.stdout
    assert "train.py --hparams embedded-adamw --world 4\n" in done.stdout


def test_there_is_an_example_of_every_exemplary_file() -> None:
    files = sorted((ROOT / "submissions").glob("train_*.py"))
    assert sorted(strategies().values()) == files
    assert all(read(file).strategy.world_size in (0, 1, 2, 4) for file in files)


@pytest.mark.parametrize(
    ("folder", "options", "words"),
    [
        ("full", (), "is not empty"),
        (
            "new",
            ("--strategy", "zero"),
            "no example for 'zero'; there is one for compiled, cp, ddp",
        ),
        ("file/inside", (), "cannot be written"),
        ("new", ("--hparams", "nothing"), "no benchmark 'nothing'"),
    ],
    ids=["not-empty", "no-strategy", "no-folder", "no-benchmark"],
)
def test_what_cannot_be_started_is_a_line_and_leaves_nothing(
    tmp_path: Path, folder: str, options: tuple[str, ...], words: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("no folder")
    before = sorted(tmp_path.rglob("*"))
    done = validator("init", tmp_path / folder, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("script", ["simulate_validator.py", "setup_benchmark.py"])
def test_a_python_without_the_packages_is_told_in_a_line(script: str) -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "local_test" / script), "train.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "lacks torch, transformers" in done.stderr
    assert ". .venv/bin/activate" in done.stderr


def test_a_file_for_one_rank_is_told_how_to_be_tried() -> None:
    done = validator("check", ROOT / "submissions" / "train_single.py")
    assert done.returncode == 1
    assert "= 1 rank, but the benchmark runs on 2" in done.stdout
    assert "try the file with `--world 1`" in " ".join(done.stdout.split())


def test_a_missing_snapshot_is_told_the_command_that_makes_it(tmp_path: Path) -> None:
    train = ROOT / "submissions" / "train_ddp.py"
    wanted = ("--hparams", "qwen3-30b-a3b", "--snapshot", tmp_path / "none")
    done = validator("run", train, "--sandbox", "none", *wanted)
    assert done.returncode == 2
    profile = ROOT / "profiles" / "qwen3-30b-a3b.json"
    assert f"`validator preload --hparams {profile} --snapshot {tmp_path / 'none'}`" in done.stderr
