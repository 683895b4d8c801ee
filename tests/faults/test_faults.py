"""Whatever dies or stops, at whatever moment: the verdict names the right side, and nothing is left.

A real evaluation in a real sandbox; when it enters a phase, a process is killed or stopped. `TABLE` says
what has to come of it and stands in docs/security.md; the test holds both to what happens.
"""

import json
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.preload import preload
from harness.evaluate import Options, evaluate
from harness.parsing.ask import end_server
from harness.phases import PhaseName, Phases
from harness.result import EvaluationResult
from harness.sandbox import Sandbox, running
from harness.sandbox.process_tree import descendants
from tests.judging import explain
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

TRAIN: Final = ROOT / "tests" / "faults" / "train.py"
#: How a process is told from others: by its command line.
TARGETS: Final = {
    "a rank": b"env.worker",
    "torchrun": b"torch.distributed.run",
    "the supervisor": b"supervise",
}
FAULTS: Final = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
STATES: Final = {
    "loading": PhaseName.LOAD,
    "setting up": PhaseName.SETUP,
    "warming up": PhaseName.WARMUP,
    "timed": PhaseName.TIMED,
    "opening": PhaseName.OPEN,
}
OURS: Final = "error: worker_failed"
#: What happens to whom: before the hand-over, after it, and while the state is opened.
TABLE: Final = {
    ("a rank", "killed"): (OURS, "rejected: rank_exited", "rejected: rank_exited"),
    ("a rank", "stopped"): (OURS, "rejected: timed_out", "rejected: timed_out"),
    ("torchrun", "killed"): (OURS, "rejected: rank_exited", "rejected: rank_exited"),
    # Until the ranks have found each other it holds their store.
    ("torchrun", "stopped"): (OURS, "accepted: ok", "accepted: ok"),
    ("the supervisor", "killed"): ("error: internal", "rejected: not_ended", "rejected: not_ended"),
    # The evaluation goes on; only that its sandbox does not end is noticed, after the hand-over.
    ("the supervisor", "stopped"): (*["rejected: not_ended"] * 3,),
}


@dataclass(frozen=True)
class Case:
    target: str
    fault: str
    state: str

    def __str__(self) -> str:
        return f"{self.target} {self.fault} while {self.state}"

    @property
    def expected(self) -> str:
        before, after, opening = TABLE[self.target, self.fault]
        if self.state == "loading":
            return before
        return opening if self.state == "opening" else after


def cases() -> list[Case]:
    return [Case(target, fault, state) for target, fault in TABLE for state in STATES]


def processes_of(target: str) -> list[int]:
    """Below this process, the innermost first: a sandbox's own have the same words on their lines."""
    found = []
    for process in descendants():
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if target == "a rank" and TARGETS["torchrun"] in words:
            continue
        if TARGETS[target] in words and b"bwrap" not in words[0]:
            found.append(process.pid)
    return sorted(found, reverse=True)


@pytest.fixture(scope="module")
def benchmark(quick: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> LoadedHparams:
    """Short limits: what is stopped is waited for."""
    raw: dict[str, Any] = json.loads(quick.path.read_bytes())
    raw["limits"] |= {
        "startup_seconds": 30, "setup_seconds": 12, "run_seconds": 12, "open_seconds": 6
    }  # fmt: skip
    path = tmp_path_factory.mktemp("faults") / "hparams.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return load(path)


def inject(case: Case) -> list[int]:
    """Do it; the processes that it was done to."""
    until = time.monotonic() + 20
    while not (found := processes_of(case.target)):
        assert time.monotonic() < until, f"{case.target} was not found"
        time.sleep(0.02)
    hit = found[:1]
    for pid in hit:
        os.kill(pid, FAULTS[case.fault])
    return hit


def judge(
    case: Case | None, benchmark: LoadedHparams, sandbox: Sandbox
) -> tuple[EvaluationResult, list[int]]:
    hit: list[int] = []

    def enter(name: PhaseName, detail: str) -> None:
        if case is not None and name is STATES[case.state] and not hit:
            hit.extend(inject(case))

    options = Options(world_size=2, runs=1)
    result = evaluate(TRAIN, benchmark, preload(benchmark), sandbox, options, Phases(enter))
    return result, hit


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_right_side_is_blamed_and_nothing_is_left(
    case: Case, benchmark: LoadedHparams, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sandbox.level == "docker" and case.target != "the supervisor":
        pytest.skip("inside a container ranks are no children of ours")
    monkeypatch.setattr(running, "KILL_SECONDS", -5.0)  # of a supervisor that does not answer
    before = {process.pid for process in descendants()}
    began = time.monotonic()
    result, hit = judge(case, benchmark, sandbox)
    try:
        assert hit, "the phase was never entered"
        assert f"{result.verdict}: {result.code}" == case.expected, explain(result)
        assert time.monotonic() - began < 90
    finally:
        for pid in hit:
            if case.fault == "stopped" and case.target == "the supervisor":
                os.kill(pid, signal.SIGCONT)  # now it hears that the judge has hung up
    end_server()  # of the parser, which stays for the next one
    until = time.monotonic() + 20
    while (left := {each.pid for each in descendants() if each.state != "Z"} - before) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    assert not left


@pytest.mark.slow
@pytest.mark.faults
def test_the_next_evaluation_works(benchmark: LoadedHparams, sandbox: Sandbox) -> None:
    result, _ = judge(None, benchmark, sandbox)
    assert str(result.verdict) == "accepted", explain(result)


def test_the_table_stands_in_the_manual() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for (target, fault), outcomes in TABLE.items():
        row = " | ".join((f"{target} is {fault}", *outcomes))
        assert re.search(re.escape(f"| {row} |"), page), row
