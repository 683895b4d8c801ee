"""Whole evaluations of train files: real ranks, real reference, and a real sandbox where it matters.

Every file in tests/submissions says in its first line what it does and what has to come of it:
    expects: VERDICT CODE[|CODE] world=N [profile=NAME] — what is wrong with it.
`make test-all` judges all of them in a real sandbox. In the quick run that is done for those that try
its walls or that end what torchrun has started; the others are judged with ranks that are forked
(`forked_ranks.py`), which takes a second or two instead of ten.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.errors import Code, InputError, Verdict
from harness.result import EvaluationResult
from harness.sandbox import Level, Sandbox
from tests.judging import Judge, expected_of, explain
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

FILES = sorted((ROOT / "tests" / "submissions").glob("*.py"))
#: It leaves a process behind, to which it gives this name.
LEAVES_A_STRAY = "forks_and_ignores_sigterm"
STRAY = b"trainjudge-stray"
#: They need a sandbox: its limits, its walls, its end of every process.
FOR_A_SANDBOX = {
    "floods_stdout",
    LEAVES_A_STRAY,
    "memory_hog",
    "outbox_flood",
    "reads_reference",
}
#: Judged in a real sandbox in the quick run too. The flood of output is in conformance/test_limits.py.
SANDBOXED = FOR_A_SANDBOX - {"floods_stdout"} | {"killed_rank"}
#: They end at `limits.run_seconds`.
ENDLESS = {"hangs_rank"}
EXEMPLARY = {"train_single": 1, "train_ddp": 2, "train_fsdp": 2, "train_ep": 2}


def test_every_file_that_is_named_here_is_there() -> None:
    assert {file.stem for file in FILES} >= FOR_A_SANDBOX | SANDBOXED | ENDLESS


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


def deserves(result: EvaluationResult, file: Path) -> None:
    """The verdict is the one that the file's first line names, and can be shown and stored."""
    expected = expected_of(file)
    assert result.verdict is expected.verdict, explain(result)
    assert result.code in expected.codes, explain(result)
    assert result.message
    assert "Traceback" not in result.message
    assert (result.score is None) == (result.verdict is not Verdict.ACCEPTED)
    EvaluationResult.model_validate_json(result.model_dump_json())
    if file.stem == "patches_time":  # it sleeps a second; the clocks of its own process stand still
        assert result.runs[0].seconds > 1.0


@pytest.fixture
def benchmark(quick: LoadedHparams, impatient: LoadedHparams, file: Path) -> LoadedHparams:
    return impatient if file.stem in ENDLESS else quick


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.stem not in FOR_A_SANDBOX],
    ids=lambda file: file.stem,
)
def test_a_train_file_gets_the_verdict_that_it_deserves(
    forked_judge: Judge, benchmark: LoadedHparams, file: Path
) -> None:
    deserves(forked_judge(file, benchmark, expected_of(file).world_size), file)


def in_a_sandbox() -> Iterator[Any]:
    for file in FILES:
        marks = () if file.stem in SANDBOXED else pytest.mark.slow
        yield pytest.param(file, id=file.stem, marks=marks)


@pytest.mark.parametrize("file", list(in_a_sandbox()))
def test_a_train_file_gets_the_same_verdict_in_a_sandbox(
    judge: Judge, benchmark: LoadedHparams, sandbox: Sandbox, file: Path
) -> None:
    if file.stem == "reads_reference" and sandbox.level is Level.NONE:
        pytest.skip("level none hides nothing: docs/sandbox.md says so")
    deserves(judge(file, benchmark, expected_of(file).world_size), file)
    if file.stem == LEAVES_A_STRAY:  # beside other files its process may be there
        assert not stray_processes()


def accepted_twice(result: EvaluationResult) -> None:
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert len(result.runs) == 2
    assert result.runs[0].challenge_seed != result.runs[1].challenge_seed
    assert result.score is not None
    assert result.score.mfu > 0
    for run in result.runs:
        assert len(run.reported_memory_bytes) == result.world_size
        assert min(run.reported_memory_bytes) > 100 * 2**20  # torch alone is larger


@pytest.mark.parametrize("name", EXEMPLARY)
def test_an_exemplary_train_file_is_accepted(
    forked_judge: Judge, quick: LoadedHparams, name: str
) -> None:
    accepted_twice(forked_judge(ROOT / "submissions" / f"{name}.py", quick, EXEMPLARY[name], 2))


def test_an_exemplary_train_file_is_accepted_in_the_best_sandbox_there_is(
    judge: Judge, quick: LoadedHparams, sandbox: Sandbox
) -> None:
    result = judge(ROOT / "submissions" / "train_ep.py", quick, 2, 2)
    accepted_twice(result)
    assert result.isolation == sandbox.level


def test_a_file_that_is_not_there_is_the_callers_fault(judge: Judge, quick: LoadedHparams) -> None:
    with pytest.raises(InputError):
        judge(Path(os.devnull + "-missing.py"), quick, 1)


def test_a_rank_that_dies_of_a_signal_is_quoted_with_its_name_and_the_line(
    judge: Judge, quick: LoadedHparams
) -> None:
    result = judge(FILES[0].with_name("segfault.py"), quick, 1)
    assert result.code is Code.RANK_EXITED
    assert "SIGSEGV, Segmentation fault, line 16 in inner_steps" in result.message
    assert result.detail.splitlines()[-1].endswith('train.py", line 16 in inner_steps')


def test_a_traceback_begins_in_the_train_file(forked_judge: Judge, quick: LoadedHparams) -> None:
    for name in ("raises_in_setup", "raises_in_warmup", "raises_at_import"):
        detail = forked_judge(FILES[0].with_name(f"{name}.py"), quick, 1).detail
        first = detail.splitlines()[1]
        assert "Traceback" in detail and "train.py" in first, detail


def test_a_file_whose_strategy_does_not_fit_is_known_by_its_hash(
    forked_judge: Judge, quick: LoadedHparams
) -> None:
    file = FILES[0].with_name("wrong_product.py")
    refused = forked_judge(file, quick, 1)
    assert refused.verdict is Verdict.REJECTED and not refused.submission.strategy
    assert refused.submission.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_wrong_token_count_is_noted_and_nothing_more(
    forked_judge: Judge, quick: LoadedHparams
) -> None:
    result = forked_judge(FILES[0].with_name("lies_about_tokens.py"), quick, 1)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    [said] = [finding for run in result.runs for finding in run.findings]
    assert said.check == "tokens" and "It is not used" in said.message


def test_waiting_for_the_machine_is_a_phase_of_its_own(
    forked_judge: Judge, quick: LoadedHparams, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def busy_at_first(tell: Callable[[], None]) -> Iterator[None]:
        tell()
        time.sleep(0.2)
        yield

    monkeypatch.setattr("harness.host.site.machine_held", busy_at_first)
    result = forked_judge(FILES[0].with_name("import_error.py"), quick, 1)
    seconds = {phase.name: phase.seconds for phase in result.phases}
    assert list(seconds)[:3] == ["prepare", "wait", "launch"]
    assert 0.2 <= seconds["wait"] < 2
