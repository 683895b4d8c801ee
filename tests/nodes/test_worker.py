"""A season whose evaluations take two machines each: its worker finds them as every command does."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.result import EvaluationResult
from tests.edited import differing
from tests.nodes.machines import Machines
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

FILE = str(ROOT / "submissions" / "train_ddp.py")


@pytest.fixture(scope="module")
def quick(quick: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> LoadedHparams:
    """For two machines; what its `machines` hold."""
    return differing(quick, tmp_path_factory.mktemp("two"), {"world.nodes": 2})


@pytest.mark.slow
def test_a_worker_judges_on_the_machines_that_its_environment_names(
    machines: Machines, quick: LoadedHparams, tmp_path: Path
) -> None:
    environment = machines.environment | {
        "TRAINJUDGE_DATA": str(tmp_path / "data"),
        "TRAINJUDGE_HPARAMS": str(quick.path),
        "TRAINJUDGE_AGENTS": ",".join(machines.addresses),
        "TRAINJUDGE_AGENTS_KEY": str(machines.key),
    }

    def validator(*words: str) -> str:
        command = [sys.executable, "-m", "harness.cli", *words]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    preload(quick)
    validator("season", "new", "autumn", "--peak", "0.1")
    validator("author", "add", "ada")
    validator("submit", FILE, "--author", "ada")
    assert "evaluation 1: accepted (ok)" in validator("worker", "--once", "--keep-gib", "1")
    result = EvaluationResult.model_validate_json(validator("show", "1", "--json"))
    assert [delay.node for delay in result.runs[0].delays] == list(machines.addresses)
    assert "ada" in validator("leaderboard")
