"""What a train file reaches of the fleet that its machine is a node of: nothing from inside a sandbox."""

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.errors import Verdict
from harness.sandbox import Level, choose
from tests.fleet.nodes import Nodes
from tests.judging import explain, judging_in
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

ATTACK = ROOT / "tests" / "attacks" / "reaching" / "fleets_ports.py"


@pytest.mark.slow
def test_a_sandbox_reaches_no_port_and_no_socket_of_a_fleet(
    nodes: Nodes, quick: LoadedHparams
) -> None:
    """Without a sandbox the same file reaches them: what it tries is no pretence."""
    nodes.add("here")
    with judging_in(choose(Level.NONE)) as judge:
        reached = judge(ATTACK, quick, 1)
    assert reached.verdict is Verdict.REJECTED, explain(reached)
    for found in ("a fleet can be reached: [", "/tmp/ray/session_latest/sockets/", "gRPC at "):
        assert found in explain(reached)
    with judging_in(choose("auto")) as judge:
        held = judge(ATTACK, quick, 1)
    assert held.verdict is Verdict.ACCEPTED, explain(held)
