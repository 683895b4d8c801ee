"""Whole evaluations of real train files: real sandbox, real torchrun, real reference.

Every file in tests/submissions says in its first line what it does and what has to come of it:
    expects: VERDICT CODE[|CODE] world=N — what is wrong with it.
"""

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import Code, Verdict
from harness.evaluate import Options, evaluate
from harness.hparams import LoadedHparams, load
from harness.phases import Phases
from harness.result import EvaluationResult
from harness.sandbox import Level, Sandbox, choose
from harness.snapshot import Snapshot

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "tests" / "submissions").glob("*.py"))
EXPECTS = re.compile(r'"""expects: (\w+) ([\w|]+) world=(\d+) — .+')
#: The name that `forks_and_ignores_sigterm.py` gives to the process that it leaves behind.
STRAY = b"trainjudge-stray"


@dataclass(frozen=True)
class Expected:
    verdict: Verdict
    codes: tuple[Code, ...]
    world_size: int


def expected_of(file: Path) -> Expected:
    match = EXPECTS.match(file.read_text(encoding="utf-8"))
    assert match, f"{file.name}: the first line does not say what is expected"
    verdict, codes, world = match.groups()
    return Expected(Verdict(verdict), tuple(Code(code) for code in codes.split("|")), int(world))


@pytest.fixture(scope="module")
def quick(loaded: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> LoadedHparams:
    """The embedded benchmark with short rows, one run and limits that a test can wait for."""
    raw: dict[str, Any] = json.loads(loaded.path.read_bytes())
    raw["model"]["tokenizer"] = str(loaded.resolve(raw["model"]["tokenizer"]))
    raw["data"]["file"] = str(loaded.resolve(raw["data"]["file"]))
    raw |= {
        "sequence_length": 64,
        "global_batch": 8,
        "steps": {"min": 4, "max": 5},
        "warmup_steps": 1,
        "evaluation_runs": 1,
        "limits": {
            "run_seconds": 15,
            "setup_seconds": 90,
            "memory_bytes": 3 * 2**30,
            "outbox_bytes": 128 * 2**20,
            "log_bytes": 64 * 2**10,
        },
    }
    path = tmp_path_factory.mktemp("quick") / "hparams.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return load(path)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return choose("auto")


@pytest.fixture
def judge(
    quick: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Evaluates a file, and afterwards nothing may be left: no process, no file."""
    # Not below tmp_path, which no other user may enter.
    scratch = Path(tempfile.mkdtemp(prefix="evaluations-"))
    scratch.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def run(file: Path, world_size: int, runs: int = 1) -> EvaluationResult:
        result = evaluate(
            file,
            quick,
            snapshot,
            sandbox,
            Options(world_size=world_size, runs=runs),
            Phases(lambda name, detail: None),
        )
        assert not list(scratch.iterdir()), "the evaluation left files behind"
        return result

    yield run
    monkeypatch.undo()
    scratch.rmdir()


def stray_processes() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "comm").read_bytes()
            except OSError:
                continue
            if STRAY[:15] in words:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_train_file_gets_the_verdict_that_it_deserves(
    judge: Any, sandbox: Sandbox, file: Path
) -> None:
    expected = expected_of(file)
    if file.stem == "reads_reference" and sandbox.level is Level.NONE:
        pytest.skip("level none hides nothing: docs/sandbox.md says so")
    result = judge(file, expected.world_size)
    assert (result.verdict, result.code in expected.codes) == (expected.verdict, True), (
        f"{result.code}: {result.message}\n{result.detail}\n{result.log}"
    )
    assert result.message
    assert "Traceback" not in result.message
    assert not stray_processes()
    assert (result.score is None) == (result.verdict is not Verdict.ACCEPTED)
    EvaluationResult.model_validate_json(result.model_dump_json())


@pytest.mark.parametrize("name", ["train_single", "train_ddp", "train_fsdp", "train_ep"])
def test_an_exemplary_train_file_is_accepted(judge: Any, name: str) -> None:
    result = judge(ROOT / "submissions" / f"{name}.py", 1 if name == "train_single" else 2, runs=2)
    assert result.verdict is Verdict.ACCEPTED, f"{result.message}\n{result.detail}"
    assert len(result.runs) == 2
    assert result.runs[0].challenge_seed != result.runs[1].challenge_seed
    assert result.score is not None
    assert result.score.mfu > 0
    assert result.isolation == choose("auto").level


def test_the_judges_clock_counts_what_a_patched_clock_hides(judge: Any) -> None:
    result = judge(ROOT / "tests" / "submissions" / "patches_time.py", 1)
    assert result.runs[0].seconds > 1.0


def test_a_file_that_is_not_there_is_the_callers_fault(judge: Any) -> None:
    from harness.errors import InputError

    with pytest.raises(InputError):
        judge(Path(os.devnull + "-missing.py"), 1)
