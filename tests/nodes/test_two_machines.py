"""Whole evaluations on two machines, each with an agent, and what goes wrong there: whose fault it is."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.errors import Code, InputError, JudgeError, Verdict
from harness.evaluate import Options, evaluate
from harness.nodes.key import make_key
from harness.nodes.nodes import Nodes
from harness.phases import PhaseName, Phases
from harness.result import EvaluationResult
from harness.sandbox import Level, choose
from harness.sandbox.removal import remove_tree
from tests.board.processes import wait_until
from tests.judging import expected_of, explain
from tests.nodes.machines import Machines
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

SUBMISSIONS = ROOT / "submissions"
WRONG = ROOT / "tests" / "submissions"
ATTACK = ROOT / "tests" / "attacks" / "reaching" / "beyond_its_fabric.py"

FLOOD = """
def get_strategy():
    return {"dp_size": 2}

import gc, os, threading
rank = next(each for each in gc.get_objects() if type(each).__name__ == "RankSocket")

def flood():
    while True:
        rank._socket.sendall(b"\\0\\0\\0\\x02{}" * 100_000)

if os.environ["RANK"] == "1":
    threading.Thread(target=flood).start()

def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    threading.Event().wait()
"""


@pytest.fixture
def nodes(machines: Machines, quick: LoadedHparams) -> Iterator[Nodes]:
    with Nodes(machines.addresses, machines.key, quick, preload(quick), 2) as connected:
        yield connected


def judged(
    file: Path, benchmark: LoadedHparams, nodes: Nodes, phases: Phases | None = None
) -> EvaluationResult:
    return evaluate(
        file,
        benchmark,
        preload(benchmark),
        choose(Level.BUBBLEWRAP),
        Options(site=nodes),
        phases or Phases(lambda name, detail: None),
    )


@pytest.mark.parametrize("name", ["train_ddp", pytest.param("train_ep", marks=pytest.mark.slow)])
def test_ranks_on_two_machines_are_judged_as_on_one(
    name: str, nodes: Nodes, quick: LoadedHparams
) -> None:
    result = judged(SUBMISSIONS / f"{name}.py", quick, nodes)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert result.isolation == Level.BUBBLEWRAP
    assert result.machine is not None and len(result.machine.devices) == 2
    [run] = result.runs
    assert [delay.node for delay in run.delays] == list(nodes.addresses)
    for delay in run.delays:
        assert delay.uncertainty > 0
        assert -delay.uncertainty < delay.release < run.seconds
        assert -delay.uncertainty < delay.commitment < run.seconds


@pytest.mark.parametrize(
    "name",
    [
        "disagreeing_ranks",
        pytest.param("killed_rank", marks=pytest.mark.slow),
        pytest.param("raises_in_step_on_one_rank", marks=pytest.mark.slow),
    ],
)
def test_what_a_file_does_wrong_on_one_machine_is_its_own_fault(
    name: str, nodes: Nodes, quick: LoadedHparams
) -> None:
    file = WRONG / f"{name}.py"
    expected, result = expected_of(file), judged(file, quick, nodes)
    assert result.verdict is expected.verdict, explain(result)
    assert result.code in expected.codes, explain(result)


def test_a_sandbox_reaches_its_ranks_on_the_other_machine_and_nothing_else(
    machines: Machines, nodes: Nodes, quick: LoadedHparams
) -> None:
    """In the machine itself, outside of the sandbox, the same file finds the agents and the judge."""
    reached = machines.run_inside(0, sys.executable, str(ATTACK))
    assert "there is more than its ranks" in reached.stderr
    assert machines.addresses[0].split(":")[0].rsplit(".", 1)[0] in reached.stderr
    assert "a packet socket" in reached.stderr and "an interface more" in reached.stderr
    held = judged(ATTACK, quick, nodes)
    assert held.verdict is Verdict.ACCEPTED, explain(held)


def test_a_rank_that_floods_its_socket_is_to_blame_and_not_the_machine(
    nodes: Nodes, quick: LoadedHparams, tmp_path: Path
) -> None:
    file = tmp_path / "flood.py"
    file.write_text(FLOOD)
    result = judged(file, quick, nodes)
    assert result.verdict is Verdict.REJECTED, explain(result)
    assert result.code is Code.BAD_MESSAGE


@pytest.mark.slow
@pytest.mark.parametrize(
    "phase", [PhaseName.LOAD, PhaseName.WARMUP, PhaseName.TIMED, PhaseName.STOP]
)
def test_a_machine_that_dies_is_our_failure_and_the_other_one_is_free_again(
    phase: PhaseName, machines: Machines, quick: LoadedHparams
) -> None:
    def kill(name: PhaseName, detail: str) -> None:
        if name is phase and machines.agents[1].poll() is None:
            machines.kill(1)

    with Nodes(machines.addresses, machines.key, quick, preload(quick), 2) as nodes:
        result = judged(SUBMISSIONS / "train_ddp.py", quick, nodes, Phases(kill))
    assert result.verdict is Verdict.ERROR, explain(result)
    assert result.code is Code.NODE_LOST
    assert machines.addresses[1] in result.message
    machines.start(1)
    assert not machines.left()
    with Nodes(machines.addresses, machines.key, quick, preload(quick), 2):
        pass


def test_an_agent_works_for_one_judge_at_a_time(
    machines: Machines, nodes: Nodes, quick: LoadedHparams
) -> None:
    with (
        pytest.raises(JudgeError) as refused,
        Nodes(machines.addresses, machines.key, quick, preload(quick), 2),
    ):
        pass
    assert refused.value.code is Code.MACHINE_BUSY


def test_a_judge_with_another_key_is_not_heard(
    machines: Machines, quick: LoadedHparams, tmp_path: Path
) -> None:
    make_key(tmp_path / "other.pem")
    with (
        pytest.raises(JudgeError) as refused,
        Nodes(machines.addresses, tmp_path / "other.pem", quick, preload(quick), 2),
    ):
        pass
    assert refused.value.code is Code.NODE_LOST


def test_an_agent_without_the_benchmark_says_so(machines: Machines, loaded: LoadedHparams) -> None:
    with (
        pytest.raises(InputError, match="does not hold this benchmark"),
        Nodes(machines.addresses, machines.key, loaded, preload(loaded), 2),
    ):
        pass


def test_ranks_that_cannot_be_dealt_evenly_are_refused(
    machines: Machines, quick: LoadedHparams
) -> None:
    with pytest.raises(InputError, match="3 ranks cannot be dealt evenly to 2"):
        Nodes(machines.addresses, machines.key, quick, preload(quick), 3)


@pytest.mark.slow
def test_the_command_judges_on_the_machines_that_it_is_given(machines: Machines) -> None:
    ended = subprocess.run(machines.judge, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    result = EvaluationResult.model_validate_json(ended.stdout)
    assert "on 2 machines where the benchmark asks for 1" in result.warnings
    assert len(result.runs[0].delays) == 2


@pytest.mark.slow
@pytest.mark.parametrize("phase", [PhaseName.LAUNCH, PhaseName.WARMUP, PhaseName.TIMED])
def test_an_agent_that_is_told_to_end_is_our_failure_and_leaves_nothing(
    phase: PhaseName, machines: Machines, quick: LoadedHparams
) -> None:
    """It ends its ranks, and those of the other machine fail of it: neither is the file's doing."""

    def end(name: PhaseName, detail: str) -> None:
        if name is phase:
            machines.agents[1].send_signal(signal.SIGTERM)

    try:
        with Nodes(machines.addresses, machines.key, quick, preload(quick), 2) as nodes:
            result = judged(SUBMISSIONS / "train_ddp.py", quick, nodes, Phases(end))
        assert result.verdict is Verdict.ERROR, explain(result)
        assert result.code is Code.NODE_LOST
        assert machines.agents[1].wait(60) == 0
        wait_until(lambda: not machines.left())
    finally:
        machines.kill(1)
        machines.start(1)


@pytest.mark.slow
def test_of_a_judge_that_is_killed_nothing_is_left_on_any_machine(
    machines: Machines, quick: LoadedHparams
) -> None:
    with subprocess.Popen(
        machines.judge,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=machines.environment,
    ) as judge:
        wait_until(lambda: len(machines.left()) > 3, 120)  # three work folders, and ranks
        judge.kill()
    wait_until(lambda: len(machines.left()) == 1, 60)  # the judge's own, for `validator clean`
    remove_tree(machines.work / machines.left()[0])
    with Nodes(machines.addresses, machines.key, quick, preload(quick), 2):
        pass


def test_a_kept_evaluation_has_the_train_file(
    nodes: Nodes, quick: LoadedHparams, tmp_path: Path
) -> None:
    options = Options(site=nodes, keep=tmp_path / "kept")
    file = WRONG / "raises_in_step_on_one_rank.py"
    evaluate(
        file,
        quick,
        preload(quick),
        choose(Level.BUBBLEWRAP),
        options,
        Phases(lambda name, detail: None),
    )
    assert (tmp_path / "kept" / "inbox" / "train.py").read_bytes() == file.read_bytes()
