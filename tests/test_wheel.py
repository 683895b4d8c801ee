"""A wheel in an empty environment: it holds what a first verdict needs, and hides it from train files."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from harness.sandbox import Level
from harness.submission.example import strategies
from tests.project import ROOT
from tests.sandbox_levels import Available

pytest_plugins = ("tests.sandbox_levels",)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fresh environment with the wheel in it, and with this one's other packages beside."""
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: setuptools leaves its build folder where it builds, and takes what it finds there.
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "results", "build", "*.egg-info")
    )
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(source)]
    subprocess.run([*build, "--wheel-dir", str(folder)], check=True, timeout=240)
    [wheel] = folder.glob("trainjudge-*.whl")
    made = folder / "environment"
    venv.create(made, with_pip=True)
    install = [
        str(made / "bin" / "pip"),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True)
    [packages] = (made / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return made


def needs_bubblewrap(available: Available) -> None:
    if not available[Level.BUBBLEWRAP].available:
        pytest.skip(available[Level.BUBBLEWRAP].reason)


def run(environment: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    home = {"TRAINJUDGE_HOME": str(folder / "home"), "TRAINJUDGE_DATA": str(folder / "data")}
    keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [environment / "bin" / "validator", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=keep | home,
        timeout=280,
        check=False,
    )


def test_the_wheels_judge_is_the_one_that_runs_and_lists_all_benchmarks(
    installed: Path, tmp_path: Path
) -> None:
    listed = json.loads(run(installed, tmp_path, "benchmarks", "--json").stdout)
    assert len(listed) == 1 + len(list((ROOT / "profiles").glob("*.json")))
    assert all(Path(each["file"]).is_relative_to(installed) for each in listed)
    for strategy in strategies():
        done = run(installed, tmp_path, "init", strategy, "--strategy", strategy)
        assert done.returncode == 0, done.stderr


def test_from_an_empty_folder_to_a_verdict(
    installed: Path, tmp_path: Path, available: Available
) -> None:
    needs_bubblewrap(available)
    assert run(installed, tmp_path, "init", "mine").returncode == 0
    judged = run(installed, tmp_path, "run", "mine/train.py", "--runs=1", "--sandbox=bubblewrap")
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "ACCEPTED" in judged.stdout


def test_the_corpus_inside_the_wheel_is_hidden_from_a_train_file(
    installed: Path, tmp_path: Path, available: Available
) -> None:
    """The attack follows every trace of where the judge lies; it fails where it finds corpus or code."""
    needs_bubblewrap(available)
    attack = ROOT / "tests" / "attacks" / "reaching" / "corpus_by_installation.py"
    options = ("--world=1", "--runs=1", "--sandbox=bubblewrap")
    judged = run(installed, tmp_path, "run", str(attack), *options)
    assert judged.returncode == 0, judged.stdout + judged.stderr
