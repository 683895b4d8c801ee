"""Whole evaluations of real train files: real sandbox, real torchrun, real reference.

Every file in tests/submissions says in its first line what it does and what has to come of it:
    expects: VERDICT CODE[|CODE] world=N [profile=NAME] — what is wrong with it.
"""

import os
from pathlib import Path

import pytest
from judging import ROOT, Judge, expected_of, explain

from harness.errors import InputError, Verdict
from harness.hparams import LoadedHparams
from harness.result import EvaluationResult
from harness.sandbox import Level, Sandbox, choose

pytest_plugins = ("judging",)

FILES = sorted((ROOT / "tests" / "submissions").glob("*.py"))
#: The name that `forks_and_ignores_sigterm.py` gives to the process that it leaves behind.
STRAY = b"trainjudge-stray"


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
    judge: Judge, quick: LoadedHparams, sandbox: Sandbox, file: Path
) -> None:
    expected = expected_of(file)
    if file.stem == "reads_reference" and sandbox.level is Level.NONE:
        pytest.skip("level none hides nothing: docs/sandbox.md says so")
    result = judge(file, quick, expected.world_size)
    assert result.verdict is expected.verdict, explain(result)
    assert result.code in expected.codes, explain(result)
    assert result.message
    assert "Traceback" not in result.message
    assert not stray_processes()
    assert (result.score is None) == (result.verdict is not Verdict.ACCEPTED)
    EvaluationResult.model_validate_json(result.model_dump_json())


@pytest.mark.parametrize("name", ["train_single", "train_ddp", "train_fsdp", "train_ep"])
def test_an_exemplary_train_file_is_accepted(judge: Judge, quick: LoadedHparams, name: str) -> None:
    file = ROOT / "submissions" / f"{name}.py"
    result = judge(file, quick, 1 if name == "train_single" else 2, runs=2)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert len(result.runs) == 2
    assert result.runs[0].challenge_seed != result.runs[1].challenge_seed
    assert result.score is not None
    assert result.score.mfu > 0
    for run in result.runs:
        assert len(run.reported_memory_bytes) == result.world_size
        assert min(run.reported_memory_bytes) > 100 * 2**20  # torch alone is larger
    assert result.isolation == choose("auto").level


def test_the_judges_clock_counts_what_a_patched_clock_hides(
    judge: Judge, quick: LoadedHparams
) -> None:
    result = judge(ROOT / "tests" / "submissions" / "patches_time.py", quick, 1)
    assert result.runs[0].seconds > 1.0


def test_a_file_that_is_not_there_is_the_callers_fault(judge: Judge, quick: LoadedHparams) -> None:
    with pytest.raises(InputError):
        judge(Path(os.devnull + "-missing.py"), quick, 1)
