"""The participant's way: the same code path as `validator run`, and where the time went."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.machine import describe
from tests.project import ROOT


def test_simulate_validator_shows_the_verdict_and_where_the_time_went(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "local_test" / "simulate_validator.py",
            ROOT / "submissions" / "train_single.py",
            "--world=1",
            "--runs=1",
            f"--hparams={ROOT / 'hparams.json'}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # results/ goes to where the participant stands
        env={**os.environ, "COLUMNS": "120"},
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ACCEPTED" in done.stdout
    phases = ("launch", "load", "setup", "warm-up", "timed", "open", "reference", "verify")
    table = done.stdout.split("where the time went")[1]
    assert [phase for phase in phases if phase in table] == list(phases)
    assert "timed run: run 1 of 1" in done.stderr
    assert len(list((tmp_path / "results").glob("*-train_single.json"))) == 1


def test_simulate_validator_says_when_the_hardware_is_another(loaded: LoadedHparams) -> None:
    simulate = runpy.run_path(str(ROOT / "local_test" / "simulate_validator.py"))
    other_hardware = simulate["other_hardware"]
    calibration = loaded.hparams.verify.calibration
    assert calibration is not None
    here = describe("cpu", 1)

    same = here.model_copy(update={"devices": (calibration.device,)})
    assert other_hardware(loaded.hparams, same) is None
    other = here.model_copy(update={"devices": ("NVIDIA H200",)})
    said = other_hardware(loaded.hparams, other)
    assert "NVIDIA H200" in said and calibration.device in said
