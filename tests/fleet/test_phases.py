"""A node that is killed, whatever its judge is doing: that ends, and the evaluation has its verdict."""

import json
import signal
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.board.maintenance import check
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.phases import PhaseName
from tests.board.conftest import Raw
from tests.board.processes import wait_until
from tests.fleet.judging import WRITTEN
from tests.fleet.nodes import Nodes
from tests.fleet.real import command, hand_in, really_judges
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

#: An evaluation is begun five times at most, so that each of these is one's, but for its last start.
PHASES = (
    (PhaseName.LAUNCH, PhaseName.LOAD, PhaseName.SETUP, PhaseName.WARMUP),
    (PhaseName.TIMED, PhaseName.OPEN, PhaseName.STOP, PhaseName.REFERENCE),
    (PhaseName.VERIFY, PhaseName.SCORE, WRITTEN),
)
#: From a start to the last phase, on a machine that is busy.
REACH_SECONDS = 240.0


def living(processes: list[int]) -> list[int]:
    return [process for process in processes if Path(f"/proc/{process}").exists()]


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("phases", PHASES, ids=" ".join)
def test_a_node_that_is_killed_in_any_phase_leaves_nothing_and_costs_nothing(
    store: Store, url: str, raw: Raw, nodes: Nodes, quick: LoadedHparams, phases: tuple[str, ...],
    tmp_path: Path,
) -> None:  # fmt: skip
    rule = ScoringRule(isolation=("none",), pairs=0)
    open_season(store, SeasonPlan("autumn", quick.sha256, quick.hparams.name, 1, "", rule))
    add_author(store, "ada")
    hand_in(store, ROOT / "tests" / "submissions" / "honest.py", "autumn")
    snapshot, log = preload(quick), tmp_path / "log"
    halts, halted = (nodes.folder / f"{what}-left" for what in ("halts", "halted"))
    where = ("--fleet", nodes.address, "--store", url, "--hparams", str(quick.path))

    def causes() -> list[str]:
        rows = raw("SELECT body FROM events WHERE kind = 'evaluation_given_back'")
        return [json.loads(body)["cause"] for (body,) in rows]

    with command("dispatch", *where, log=log) as dispatcher:
        for number, phase in enumerate(phases):
            halts.write_text(phase)
            really_judges(nodes, "left", quick, snapshot)
            wait_until(halted.exists, REACH_SECONDS)
            processes = [int(word) for word in halted.read_text().split()]
            assert living(processes)
            halted.unlink()
            nodes.kill("left")
            wait_until(lambda count=number + 1: len(causes()) == count)  # type: ignore[misc]
            wait_until(lambda which=processes: not living(which))  # type: ignore[misc]
        halts.unlink()
        really_judges(nodes, "left", quick, snapshot)
        wait_until(lambda: raw("SELECT 1 FROM submissions WHERE state = 'judged'"), REACH_SECONDS)
        dispatcher.send_signal(signal.SIGTERM)
        assert dispatcher.wait(60) == 0, log.read_text()
    assert raw("SELECT verdict FROM submissions") == [("accepted",)], log.read_text()
    assert raw("SELECT starts, state FROM evaluations") == [(len(phases) + 1, "finished")]
    assert all("died" in cause or "killed" in cause for cause in causes()), causes()
    assert check(store).problems == ()
