"""The command as its user meets it: a subprocess, its output, its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from tests.project import ROOT

BAD = ROOT / "tests" / "submissions"


def validator(*arguments: str | Path, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        timeout=240,
        check=False,
    )


def test_help_needs_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys; sys.argv = ['validator', '--help']\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *(
            "init",
            "run",
            "check",
            "benchmarks",
            "benchmark new",
            "preload",
            "calibrate",
            "power",
            "flops",
        ),
        "doctor",
    ],
)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = validator(*command.split(), "--help")
    assert done.returncode == 0
    assert f"validator {command}" in done.stdout


def test_a_bad_file_gets_a_line_and_status_1_and_no_traceback() -> None:
    done = validator("check", BAD / "syntax_error.py")
    assert done.returncode == 1
    assert "never closed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_check_accepts_what_can_be_run() -> None:
    assert validator("check", ROOT / "submissions" / "train_ep.py").returncode == 0


def test_bad_hparams_get_one_line_for_each_problem_and_status_2(
    tmp_path: Path, loaded: LoadedHparams
) -> None:
    raw = json.loads(loaded.path.read_bytes())
    raw["global_batch"] = 0
    raw["verify"]["tolerances"]["update_eror"] = 1.0
    bad = tmp_path / "hparams.json"
    bad.write_text(json.dumps(raw))
    done = validator("run", ROOT / "submissions" / "train_ddp.py", "--hparams", bad)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2
    assert any("global_batch" in line for line in lines)
    assert any("update_eror" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no-such-file.py"], "cannot read"),
        (["run", "submissions/train_ddp.py", "--sandbox", "castle"], "castle"),
        (["run", "submissions/train_ddp.py", "--world", "0"], "--world"),
        (["flops", "no-such-config.json"], "no-such-config.json"),
    ],
)
def test_bad_arguments_are_the_callers_fault(
    arguments: list[str], words: str, snapshot: Snapshot
) -> None:
    done = validator(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rejected_file_leaves_a_result_and_status_1(tmp_path: Path, snapshot: Snapshot) -> None:
    result = tmp_path / "result.json"
    done = validator("run", BAD / "wrong_product.py", "--json", result)
    assert done.returncode == 1
    assert "REJECTED" in done.stdout
    assert str(result) in done.stdout.replace("\n", "")
    stored = json.loads(result.read_text())
    assert (stored["verdict"], stored["code"]) == ("rejected", "strategy_world_mismatch")


def test_json_on_stdout_is_json_alone(snapshot: Snapshot) -> None:
    done = validator("run", BAD / "no_inner_steps.py", "--json", "-")
    assert json.loads(done.stdout)["code"] == "no_inner_steps"


def test_preload_prints_where_the_snapshot_is(snapshot: Snapshot) -> None:
    done = validator("preload")
    assert done.returncode == 0
    assert done.stdout.strip() == str(snapshot.directory)


def test_doctor_says_what_the_machine_offers_as_json() -> None:
    done = validator("doctor", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {level["level"] for level in report["sandboxes"]} == {
        "docker",
        "bubblewrap",
        "user",
        "none",
    }


def test_flops_prints_the_table_of_the_embedded_model() -> None:
    done = validator("flops", "hparams.json", "--sequence-length", "256")
    assert done.returncode == 0, done.stderr
    assert "2,299,264" in done.stdout


def test_a_result_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    done = validator("run", BAD / "honest.py", "--json", tmp_path / "file" / "x" / "..")
    assert done.returncode == 2
