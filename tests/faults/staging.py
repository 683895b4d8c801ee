"""An evaluation that something happens to when it enters a phase, and what may not be left of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.evaluate import Options, evaluate
from harness.parsing.ask import end_server
from harness.phases import PhaseName, Phases
from harness.result import EvaluationResult
from harness.sandbox import Sandbox
from harness.sandbox.process_tree import descendants
from tests.edited import differing
from tests.judging import excuse_nobody
from tests.project import ROOT

TRAIN: Final = ROOT / "tests" / "faults" / "train.py"
#: How a process is told from others: by its command line.
TARGETS: Final = {
    "a rank": b"env.worker",
    "torchrun": b"torch.distributed.run",
    "the supervisor": b"supervise",
    "the reference": b"harness.reference.loop",
}


@pytest.fixture(scope="module")
def benchmark(quick: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> LoadedHparams:
    """Short limits: what is stopped is waited for."""
    changes = {
        "limits.startup_seconds": 60, "limits.setup_seconds": 12,
        "limits.run_seconds": 12, "limits.open_seconds": 6,
    }  # fmt: skip
    return differing(quick, tmp_path_factory.mktemp("faults"), changes)


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


def found_soon(target: str) -> int:
    """The innermost process of that kind; it may be about to start."""
    until = time.monotonic() + 20
    while not (found := processes_of(target)):
        assert time.monotonic() < until, f"{target} was not found"
        time.sleep(0.02)
    return found[0]


def judge(
    benchmark: LoadedHparams, sandbox: Sandbox, phase: PhaseName, happens: Callable[[], None]
) -> EvaluationResult:
    """Evaluate TRAIN; `happens` is called when `phase` is entered first."""
    entered: list[PhaseName] = []

    def enter(name: PhaseName, detail: str) -> None:
        entered.append(name)
        if name is phase and entered.count(phase) == 1:
            happens()

    options = Options(world_size=2, runs=1)
    with pytest.MonkeyPatch.context() as patch:
        excuse_nobody(patch)
        result = evaluate(TRAIN, benchmark, preload(benchmark), sandbox, options, Phases(enter))
    assert phase in entered, "the phase was never entered"
    return result


@contextmanager
def nothing_left() -> Iterator[None]:
    """Afterwards, and soon, no process is below this one that was not before."""
    before = {process.pid for process in descendants()}
    yield
    end_server()  # of the parser, which stays for the next one
    until = time.monotonic() + 20
    while (left := {each.pid for each in descendants() if each.state != "Z"} - before) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    assert not left
