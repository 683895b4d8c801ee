"""The fleet from a terminal, on a cluster of real raylets: what it says, and what it refuses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.benchmark.hparams import LoadedHparams
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.cli import app
from harness.errors import Code, InputError
from harness.fleet.canaries import Canary, record
from tests.board.examples import accepted_result, board_with, hand_in, rejected_result
from tests.board.processes import wait_until
from tests.fleet.nodes import Nodes, require_ray

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "220"}).invoke(app, list(words))


def refusal(*words: str) -> InputError:
    error = run(*words).exception
    assert isinstance(error, InputError), error
    return error


def test_nodes_are_shown_with_what_is_known_of_them_and_drained_by_name(
    nodes: Nodes, store: Store, url: str, loaded: LoadedHparams
) -> None:
    board_with(store, "ada", rule=ScoringRule(pairs=0))
    hand_in(store, "ada")
    for name in ("left", "right"):
        nodes.add(name, loaded.sha256)
    canary = Canary("train.py", b"pass", 2)
    record(store, canary, loaded.sha256, "left", accepted_result())
    record(store, canary, loaded.sha256, "right", rejected_result())
    shown = run("fleet", "status", nodes.address, "--store", url).output
    (left,) = [line for line in shown.splitlines() if "left-" in line]
    assert "2 x NVIDIA H100 80GB HBM3" in left
    assert loaded.sha256[:12] in left
    assert "serves" in left and "accepted, 0.0 h ago" in left and "nothing" in left
    assert "excluded: it rejects the canary" in shown
    assert "1 evaluation(s) wait" in shown

    error = refusal("fleet", "drain", nodes.address, "mid")
    assert (error.code, error.message) == (
        Code.UNKNOWN_ID, "mid has to name one node, and names none"
    )  # fmt: skip
    assert run("fleet", "drain", nodes.address, "left").exit_code == 0
    directory = nodes.directory()
    wait_until(lambda: [node.offer.host for node in directory.nodes()] == ["right"])


def test_a_host_is_admitted_with_a_reason(store: Store, url: str, loaded: LoadedHparams) -> None:
    words = ("fleet", "admit", "left", "--why", "its fan was replaced", "--store", url)
    assert refusal(*words).code is Code.NOT_NOW
    record(store, Canary("train.py", b"pass", 2), loaded.sha256, "left", rejected_result())
    assert run(*words).output == "left judges again\n"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:high"])
def test_where_no_fleet_is_that_is_said_at_once(address: str, url: str) -> None:
    require_ray()
    for words in (
        ("fleet", "status", address),
        ("fleet", "drain", address, "left"),
        ("dispatch", "--fleet", address, "--store", url),
        ("power", "--fleet", address),
    ):
        error = refusal(*words)
        assert error.code is Code.BAD_ARGUMENT
        assert error.message.startswith(f"no fleet at {address}")


def test_a_canary_has_to_be_a_train_file(tmp_path: Path, url: str) -> None:
    file = tmp_path / "canary.py"
    file.write_text("pass\n")
    done = run("dispatch", "--fleet", "127.0.0.1:1", "--store", url, "--canary", str(file))
    assert "no_inner_steps" in str(getattr(done.exception, "code", done.exception))
