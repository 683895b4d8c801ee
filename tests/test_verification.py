"""What may lie in the outbox, and what is said of a benchmark before it judges."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.conclusion import conclude
from harness.errors import Code, InputError, SubmissionError, Verdict
from harness.likely_cause import CHECK
from harness.reference.task import check_rows, default_variant
from harness.result import Metric, RunResult
from harness.timed.run import opened_folder
from harness.timed.workspace import Workspace
from harness.verification import MOST_TOKENS, check_names, secret_rows, together, with_finding
from harness.verify.findings import note, rejects

# Of a timed, only how many ranks had something to open matters here.
TRIALS: Any = [SimpleNamespace(plan=SimpleNamespace(orders=((), ())))]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Workspace() as made:
        yield made


def test_the_ranks_folders_may_lie_in_the_outbox(workspace: Workspace) -> None:
    for rank in range(2):
        opened_folder(workspace.outbox, 0, rank).mkdir()
    check_names(TRIALS, workspace.outbox)


@pytest.mark.parametrize("name", ["junk", "run0-rank2", "run1-rank0", "\x1b[2J", "\udcff"])
def test_nothing_else_may_lie_in_the_outbox(workspace: Workspace, name: str) -> None:
    (workspace.outbox / name).touch()
    with pytest.raises(SubmissionError) as caught:
        check_names(TRIALS, workspace.outbox)
    assert caught.value.code is Code.OUTBOX_INVALID
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()


def run_of(number: int, update_error: float) -> RunResult:
    return RunResult(
        run=number, challenge_seed="", steps=1, tokens=1, seconds=1, tokens_per_second=1,
        reported_losses=(), reference_loss=None, step_weights=(), findings=(),
        metrics=(
            Metric(name="loss", measured=9.0, allowed=10.0),
            Metric(name="update_error", measured=update_error, allowed=0.1),
        ),
    )  # fmt: skip


def test_what_runs_say_together_is_said_of_the_best(loaded: LoadedHparams) -> None:
    hparams = loaded.hparams
    assert hparams.together.strict_update_error == 1e-4
    near, far = run_of(0, 1e-6), run_of(1, 0.01)
    assert together([near, far], hparams) == [near, far]
    runs = together([run_of(0, 0.02), run_of(1, 0.01), run_of(2, 0.03)], hparams)
    found = [[finding.check for finding in run.findings] for run in runs]
    assert found == [[], ["strict_update_error", "asked"], []]
    verdict, code, message = conclude(runs)
    assert (verdict, code) == (Verdict.REJECTED, Code.UPDATE_MISMATCH)
    assert message.startswith("run 2: none of the 3 runs agrees")


def test_what_is_asked_for_is_said_once_and_the_cause_in_the_verdict(loaded: LoadedHparams) -> None:
    off = rejects(Code.UPDATE_MISMATCH, "update_error", "it is off", 0.3, 0.1)
    good, bad = run_of(0, 1e-6), run_of(1, 0.3).model_copy(update={"findings": (off,)})
    runs = together([good, bad, bad], loaded.hparams)
    assert [[f.check for f in run.findings] for run in runs] == [
        [],
        ["update_error", "asked"],
        ["update_error"],
    ]
    runs[1] = with_finding(runs[1], note(CHECK, "that of no clipping"))
    assert conclude(runs)[2] == "run 2: it is off; that of no clipping"


def test_a_wrong_loss_needs_no_word_about_the_optimizer(loaded: LoadedHparams) -> None:
    off = rejects(Code.LOSS_MISMATCH, "loss", "it is off", 0.3, 0.1)
    bad = run_of(0, 1e-6).model_copy(update={"findings": (off,)})
    assert together([bad], loaded.hparams) == [bad]


def test_a_world_that_the_reference_cannot_use_is_said_before_the_work(
    loaded: LoadedHparams,
) -> None:
    hparams = loaded.hparams.model_copy(
        update={"reference": loaded.hparams.reference.model_copy(update={"world_size": None})}
    )
    check_rows(hparams, default_variant(hparams, 4))
    with pytest.raises(InputError, match="3 ranks"):
        check_rows(hparams, default_variant(hparams, 3))


def test_rows_whose_losses_are_compared_are_half_of_a_short_run_and_enough_of_a_long_one(
    loaded: LoadedHparams,
) -> None:
    runs: list[Any] = [SimpleNamespace(steps=steps) for steps in (1, 8, 500)]
    short, longer, long = secret_rows(runs, loaded.hparams)
    batch, length = loaded.hparams.global_batch, loaded.hparams.sequence_length
    assert [len(short), len(longer)] == [batch // 2, 4 * batch]
    assert MOST_TOKENS - length < len(long) * length <= MOST_TOKENS
    for rows, run in zip((short, longer, long), runs, strict=True):
        assert (
            len(set(rows.tolist())) == len(rows)
            and 0 <= rows.min() <= rows.max() < run.steps * batch
        )
    again = secret_rows(runs, loaded.hparams)
    assert not all(
        one.tolist() == two.tolist() for one, two in zip(again, (short, longer, long), strict=True)
    )
    nothing = loaded.hparams.verify.model_copy(update={"token_loss_share": 0.0})
    assert secret_rows(runs, loaded.hparams.model_copy(update={"verify": nothing})) == []
