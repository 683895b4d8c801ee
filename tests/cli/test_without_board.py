"""Whoever installed the judge alone can judge, and is told what the leaderboard, or a fleet, needs."""

import subprocess
import sys

import pytest

from tests.project import ROOT

#: Runs the command as if these libraries were not installed.
WITHOUT = (
    "import sys\n"
    "for name in ('alembic', 'fastapi', 'jinja2', 'pandas', 'prometheus_client', 'psycopg',\n"
    "             'pyarrow', 'ray', 'sqlalchemy', 'starlette', 'uvicorn'):\n"
    "    sys.modules[name] = None\n"
    "from harness.cli import main\n"
    "main()\n"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command", ["--help", "run --help", "submit --help", "serve --help", "fleet --help"]
)
def test_help_needs_no_leaderboard(command: str) -> None:
    assert run(*command.split()).returncode == 0


def test_a_file_is_checked_without_a_leaderboard() -> None:
    assert run("check", "submissions/train_ep.py").returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "queue",
        "show 1",
        "season list",
        "author list",
        "leaderboard",
        "worker",
        "serve",
        "publish --to site",
        "submit submissions/train_ep.py --author ada",
        "store check",
    ],
)
def test_a_command_of_the_leaderboard_says_what_to_install(command: str) -> None:
    done = run(*command.split())
    assert done.returncode == 2, done.stderr
    assert "pip install 'trainjudge[board]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_of_a_fleet_says_what_to_install() -> None:
    done = run("fleet", "drain", "127.0.0.1:1", "gpu7")
    assert done.returncode == 2, done.stderr
    assert "the fleet needs ray: pip install 'trainjudge[fleet]'" in done.stderr
    assert "Traceback" not in done.stderr
