"""What somebody meets who has never used it: the way to a first verdict, and the stones beside it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.benchmark.hparams import load_hparams
from harness.benchmark.snapshot import open_snapshot
from harness.errors import InputError
from harness.machine import gpu_files
from harness.submission.example import start, strategies
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
        ("new", ("--strategy", "fdsp"), "(did you mean fsdp?)"),
        ("file", (), "is a file"),
        ("file/inside", (), "cannot be written"),
        ("new", ("--hparams", "nothing"), "no benchmark 'nothing'"),
    ],
    ids=["not-empty", "no-strategy", "slip", "file", "no-folder", "no-benchmark"],
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
    [bad] = [
        line for line in done.stdout.splitlines() if line.startswith("bad")
    ]  # one line in a pipe
    assert "= 1 rank, but it is judged on 2" in bad
    assert bad.endswith("try the file with `--world 1`")


def test_a_missing_snapshot_is_told_the_command_that_makes_it(tmp_path: Path) -> None:
    loaded = load_hparams(Path("qwen3-30b-a3b"))
    with pytest.raises(InputError) as caught:
        open_snapshot(loaded, tmp_path / "none")
    command = f"`validator preload --hparams qwen3-30b-a3b --snapshot {tmp_path / 'none'}`"
    assert command in caught.value.message


@pytest.mark.skipif(gpu_files() > 0, reason="this machine has GPUs")
def test_a_benchmark_for_gpus_is_refused_before_anything_is_fetched_for_it() -> None:
    done = validator("run", ROOT / "submissions" / "train_ddp.py", "--hparams", "qwen3-30b-a3b")
    assert done.returncode == 2
    assert "4 ranks need a GPU each and this machine offers 0" in done.stderr
    assert "preload" not in done.stderr


def test_what_cannot_be_kept_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    done = validator("run", ROOT / "submissions" / "train_ddp.py", "--keep", tmp_path / "kept")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "exists already" in line] == [
        done.stderr.strip()
    ]


@pytest.mark.parametrize("name", ["fsdp-tp", "FSDP_TP", "train_fsdp_tp", "train_fsdp_tp.py"])
def test_a_strategy_may_be_written_as_its_file_is(name: str, tmp_path: Path) -> None:
    assert start(tmp_path / "new", name).origin.name == "train_fsdp_tp.py"


def test_commands_can_be_pasted_whatever_the_folder_is_called(tmp_path: Path) -> None:
    done = validator("init", tmp_path / "my run")
    assert f"validator run '{tmp_path / 'my run' / 'train.py'}'\n" in done.stdout
