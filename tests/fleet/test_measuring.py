"""`calibrate`, `power`, `bank fill` and `honest_noise.py` with `--fleet`, on nodes that really measure."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.bank.store import Bank
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.calibrate.evidence import Evidence
from harness.power.measured import Power
from harness.sandbox import Level, choose
from tests.fleet.nodes import Nodes
from tests.fleet.real import command, really_judges, started
from tests.project import ROOT

pytest_plugins = ("tests.judging",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAMES = ("left", "right")
SECONDS = 600
#: A calibration has no fewer.
RUNS = 6


@pytest.fixture
def fleet(nodes: Nodes, quick: LoadedHparams) -> Nodes:
    """Two nodes that hold the quick benchmark."""
    for name in NAMES:
        really_judges(nodes, name, quick, preload(quick))
    return nodes


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log"
    path.touch()
    yield path


def took_part(log: Path) -> list[str]:
    """Nodes that measured something."""
    done = [line for line in log.read_text().splitlines() if line.endswith(": done")]
    return sorted({name for name in NAMES for line in done if f" {name}-" in line})


def ends_well(log: Path, *words: str) -> None:
    with command(*words, log=log) as process:
        assert process.wait(SECONDS) == 0, log.read_text()


def test_noise_is_measured_on_all_nodes(fleet: Nodes, quick: LoadedHparams, log: Path) -> None:
    measured = log.with_name("noise.json")
    ends_well(
        log, "calibrate", "--fleet", fleet.address, "--hparams", str(quick.path), "--runs", str(RUNS),
        "--only", "the same again", "--json", str(measured), "--dry-run",
    )  # fmt: skip
    (variant,) = Evidence.model_validate_json(measured.read_bytes()).variants
    measured_runs = len(variant.values["update_error"])
    assert (variant.name, variant.runs, measured_runs) == ("the same again", RUNS, RUNS)
    assert took_part(log) == list(NAMES), log.read_text()


def test_power_is_measured_on_all_nodes(fleet: Nodes, quick: LoadedHparams, log: Path) -> None:
    measured = log.with_name("power.json")
    ends_well(
        log, "power", "--fleet", fleet.address, "--hparams", str(quick.path), "--runs", "2",
        "--family", "rows=0.125", "--json", str(measured),
    )  # fmt: skip
    (case,) = Power.model_validate_json(measured.read_bytes()).cases
    assert len(case.runs) == 2
    assert took_part(log) == list(NAMES), log.read_text()


def test_honest_runs_are_measured_on_all_nodes(
    fleet: Nodes, quick: LoadedHparams, log: Path
) -> None:
    script = str(ROOT / "measurements" / "honest_noise.py")
    words = ("--runs", "2", "--hparams", str(quick.path), "--fleet", fleet.address)
    with started(script, *words, log=log) as process:
        assert process.wait(SECONDS) == 0, log.read_text()
    assert " of 2 honest runs rejected" in log.read_text()
    assert took_part(log) == list(NAMES), log.read_text()


def test_every_node_fills_its_own_bank(
    nodes: Nodes, quick: LoadedHparams, log: Path, tmp_path: Path
) -> None:
    level = choose("auto").level
    if level in (Level.NONE, Level.DOCKER):
        pytest.skip(f"no bank is filled here at level {level}")
    for name in NAMES:
        really_judges(nodes, name, quick, preload(quick), level=level, data=tmp_path / name)
    ends_well(
        log, "bank", "fill", "--fleet", nodes.address, "--hparams", str(quick.path), "--count", "1",
    )  # fmt: skip
    assert "1 unused on each of 2 nodes" in log.read_text()
    for name in NAMES:
        (entry,) = Bank(tmp_path / name / "bank").entries()
        assert entry.benchmark == quick.hparams.name
