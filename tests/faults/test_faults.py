"""Whatever dies or stops, at whatever moment: the verdict names the right side, and nothing is left.

A real evaluation in a real sandbox; when it enters a phase, a process is killed or stopped. `TABLE` says
what has to come of it and stands in docs/security.md; the test holds both to what happens.
"""

import os
import re
import signal
import time
from dataclasses import dataclass
from typing import Final

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.phases import PhaseName
from harness.sandbox import Sandbox, running
from tests.faults.staging import benchmark, found_soon, judge, nothing_left
from tests.judging import explain
from tests.project import ROOT

__all__ = ["benchmark"]  # a fixture

pytest_plugins = ("tests.judging",)

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


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_right_side_is_blamed_and_nothing_is_left(
    case: Case, benchmark: LoadedHparams, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sandbox.level == "docker" and case.target != "the supervisor":
        pytest.skip("inside a container ranks are no children of ours")
    monkeypatch.setattr(running, "KILL_SECONDS", -5.0)  # of a supervisor that does not answer
    hit: list[int] = []

    def happens() -> None:
        hit.append(found_soon(case.target))
        os.kill(hit[0], FAULTS[case.fault])

    began = time.monotonic()
    with nothing_left():
        try:
            result = judge(benchmark, sandbox, STATES[case.state], happens)
            assert f"{result.verdict}: {result.code}" == case.expected, explain(result)
            assert time.monotonic() - began < 90
        finally:
            for pid in hit:
                if case.fault == "stopped" and case.target == "the supervisor":
                    os.kill(pid, signal.SIGCONT)  # now it hears that the judge has hung up


def test_the_table_stands_in_the_manual() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for (target, fault), outcomes in TABLE.items():
        row = " | ".join((f"{target} is {fault}", *outcomes))
        assert re.search(re.escape(f"| {row} |"), page), row
