"""The head dies: whoever was part of its fleet says so, and ends as by our own failure."""

from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.board.store import Store
from harness.errors import JudgeError
from harness.fleet.head import GONE_SECONDS
from tests.board.conftest import Raw
from tests.board.processes import wait_until
from tests.fleet.nodes import cluster
from tests.fleet.real import command

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

#: After the head's death, with what an attempt to reach it takes.
END_SECONDS = GONE_SECONDS + 30


@pytest.mark.slow
def test_whoever_loses_its_head_says_so_and_ends_as_our_failure(
    store: Store, url: str, raw: Raw, loaded: LoadedHparams, snapshot: Snapshot, tmp_path: Path
) -> None:
    with cluster(tmp_path) as nodes:
        address = nodes.address
        logs = [tmp_path / name for name in ("node", "dispatcher")]
        where = ("--fleet", address, "--store", url)
        with (
            command("fleet", "join", address, "--sandbox", "none", log=logs[0]) as node,
            command("dispatch", *where, log=logs[1]) as dispatcher,
        ):
            wait_until(lambda: raw("SELECT 1 FROM workers WHERE doing = 'waiting'"), 120)
            nodes.kill_head()
            for process, log in zip((node, dispatcher), logs, strict=True):
                assert process.wait(END_SECONDS) == JudgeError.exit_status, log.read_text()
                assert f"the head of the fleet at {address} was not reached" in log.read_text()
