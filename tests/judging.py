"""Fixtures for whole evaluations: in a real sandbox, or with ranks that are forked."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.bank.store import Bank
from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.preload import preload
from harness.errors import Code, Verdict
from harness.evaluate import Options, evaluate
from harness.phases import Phases
from harness.result import EvaluationResult
from harness.sandbox import Sandbox, choose
from harness.timed import excuses
from tests.edited import differing
from tests.forked_ranks import ForkedRanks
from tests.project import ROOT

EXPECTS = re.compile(r'"""expects: (\w+) ([\w|]+) world=(\d+)(?: profile=([\w-]+))? — .+')

Judge = Callable[..., EvaluationResult]


@dataclass(frozen=True)
class Expected:
    """What the first line of a train file in tests/submissions says has to come of it."""

    verdict: Verdict
    codes: tuple[Code, ...]
    world_size: int
    profile: str


def expected_of(file: Path) -> Expected:
    match = EXPECTS.match(file.read_text(encoding="utf-8"))
    assert match, f"{file.name}: the first line does not say what is expected"
    verdict, codes, world, profile = match.groups()
    return Expected(
        Verdict(verdict),
        tuple(Code[code.upper()] for code in codes.split("|")),
        int(world),
        profile or "",
    )


def profile_file(name: str) -> Path:
    """hparams.json, or a profile of that name."""
    return ROOT / "profiles" / f"{name}.json" if name else ROOT / "hparams.json"


@pytest.fixture(scope="module")
def quick(loaded: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> LoadedHparams:
    """The embedded benchmark with short rows, one run and a peak that need not be measured."""
    raw: dict[str, Any] = json.loads(loaded.path.read_bytes())
    raw["model"]["tokenizer"] = str(loaded.resolve(raw["model"]["tokenizer"]))
    raw["data"]["file"] = str(loaded.resolve(raw["data"]["file"]))
    raw |= {
        "mfu": {"peak_tflops": 0.1},
        "sequence_length": 64,
        "steps": {"min": 4, "max": 5},
        "warmup_steps": 1,
        "evaluation_runs": 1,
        "limits": {
            # Enough for a machine that is busy with other tests; who waits for them has its own.
            "run_seconds": 120,
            "setup_seconds": 180,
            "memory_bytes": 3 * 2**30,
            "outbox_bytes": 128 * 2**20,
            "log_bytes": 64 * 2**10,
        },
    }
    raw["verify"]["explain_seconds"] = 0
    path = tmp_path_factory.mktemp("quick") / "hparams.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return load(path)


@pytest.fixture(scope="module")
def impatient(quick: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> LoadedHparams:
    """The same for a file that never ends its run."""
    return differing(quick, tmp_path_factory.mktemp("impatient"), {"limits.run_seconds": 2})


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return choose("auto")


@pytest.fixture(scope="session")
def forked_ranks() -> Iterator[ForkedRanks]:
    with ForkedRanks() as ranks:
        yield ranks


@pytest.fixture
def judge(sandbox: Sandbox) -> Iterator[Judge]:
    """Evaluates a file on a benchmark in the best sandbox there is; afterwards no file may be left."""
    with judging_in(sandbox) as run:
        yield run


@pytest.fixture
def forked_judge(forked_ranks: ForkedRanks) -> Iterator[Judge]:
    """The same without a sandbox, in a tenth of the time: for files that do not try its walls."""
    with judging_in(forked_ranks) as run:
        yield run


@contextmanager
def judging_in(sandbox: Sandbox) -> Iterator[Judge]:
    # Not below tmp_path, which no other user may enter.
    scratch = Path(tempfile.mkdtemp(prefix="evaluations-"))
    scratch.chmod(0o711)

    def run(
        file: Path,
        benchmark: LoadedHparams,
        world_size: int,
        runs: int = 1,
        bank: Bank | None = None,
    ) -> EvaluationResult:
        snapshot = preload(benchmark)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(scratch))
            excuse_nobody(patch)
            result = evaluate(
                file,
                benchmark,
                snapshot,
                sandbox,
                Options(world_size=world_size, runs=runs, bank=bank),
                Phases(lambda name, detail: None),
            )
        assert not list(scratch.iterdir()), "the evaluation left files behind"
        return result

    yield run
    scratch.rmdir()


def excuse_nobody(patch: pytest.MonkeyPatch) -> None:
    """What tests beside this one have of the cores makes no `machine_busy` of what takes too long."""
    patch.setattr(excuses, "EXCUSED_SHARE", 1.0)


def explain(result: EvaluationResult) -> str:
    """For the message of a failing test."""
    findings = "\n".join(
        f"{finding.check}: {finding.message}" for run in result.runs for finding in run.findings
    )
    return f"{result.code}: {result.message}\n{findings}\n{result.detail}\n{result.log}"
