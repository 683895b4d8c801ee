"""A rejected update is explained by the likely mistake that leads to it, and by no other."""

import math
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.mistakes import Mistake
from harness.benchmark.problem import Sgd
from harness.benchmark.snapshot import Snapshot
from harness.comparison import Compared, Truth
from harness.errors import Code, JudgeError, Verdict
from harness.likely_cause import (
    CHECK,
    affordable,
    fitting,
    likely_cause,
    rejects_update,
    update_error,
)
from harness.result import EvaluationResult
from harness.verify.findings import Finding, Severity
from tests.edited import differing
from tests.judging import Judge, explain
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

SUBMISSIONS = ROOT / "tests" / "submissions"
HONEST = SUBMISSIONS / "honest.py"
ADAMW = {"name": "adamw", "lr": 0.001, "eps": 1e-4, "weight_decay": 0.1, "warmup_steps": 2}
ONE, OTHER = (Mistake(words, Sgd(name="sgd", lr=0.1)) for words in ("of one", "of another"))


def notes(result: EvaluationResult, check: str) -> list[str]:
    return [f.message for run in result.runs for f in run.findings if f.check == check]


@pytest.mark.parametrize(
    ("file", "optimizer", "cause", "asked"),
    [
        pytest.param(
            SUBMISSIONS / "wrong" / "no_weight_decay.py",
            ADAMW | {"max_grad_norm": 1.0},
            "without weight decay",
            "AdamW with lr 0.001, betas 0.9 and 0.999, eps 0.0001, weight decay 0.1",
            id="no weight decay",
            marks=pytest.mark.slow,  # five mistakes are tried
        ),
        pytest.param(
            HONEST,
            {"name": "sgd", "lr": 0.1, "max_grad_norm": 0.1},
            "without clipping",
            "gradients clipped to norm 0.1",
            id="no clipping",
        ),
        pytest.param(
            HONEST,
            {"name": "adamw", "lr": 0.1},
            "with SGD instead of AdamW",
            "AdamW with lr 0.1",
            id="another optimizer",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_asked_for(
    file: Path,
    optimizer: dict[str, Any],
    cause: str,
    asked: str,
    forked_judge: Judge,
    quick: LoadedHparams,
    tmp_path: Path,
) -> None:
    changes = {"optimizer": optimizer, "verify.explain_seconds": 600}
    result = forked_judge(file, differing(quick, tmp_path, changes), world_size=1)
    assert result.verdict is Verdict.REJECTED, explain(result)
    (found,) = notes(result, CHECK)
    assert f"the update is that of a training {cause}: " in found
    (said,) = notes(result, "asked")
    assert asked in said


def test_what_is_no_likely_mistake_is_not_called_one(
    forked_judge: Judge, quick: LoadedHparams, tmp_path: Path
) -> None:
    benchmark = differing(quick, tmp_path, {"verify.explain_seconds": 600})
    result = forked_judge(SUBMISSIONS / "skips_last_step.py", benchmark, world_size=1)
    assert result.verdict is Verdict.REJECTED, explain(result)
    assert notes(result, CHECK) == []
    (tried,) = notes(result, "tried")
    assert "of no likely mistake" in tried and "with momentum 0.9" in tried
    assert "tried" not in result.message
    assert len(notes(result, "asked")) == 1


def test_what_goes_wrong_while_a_cause_is_sought_is_a_note_and_no_failure(
    quick: LoadedHparams, snapshot: Snapshot, tmp_path: Path
) -> None:
    """Such as a disk that fills: here something lies where the trainings would."""
    (tmp_path / CHECK).touch()
    verify = quick.hparams.verify.model_copy(update={"explain_seconds": 600.0})
    setup = SimpleNamespace(
        hparams=quick.hparams.model_copy(update={"verify": verify}),
        snapshot=snapshot,
        world_size=1,
        sandbox=None,
        device="cpu",
    )
    truth = SimpleNamespace(challenge=None, reference=SimpleNamespace(coordinates={}))
    work: Any = SimpleNamespace(root=tmp_path)
    found = likely_cause(cast(Any, setup), cast(Any, truth), [], 0.5, 1.0, work)
    assert found is not None and found.severity is Severity.NOTE
    assert "no likely mistake could be tried: " in found.message and "File exists" in found.message


@pytest.mark.parametrize(
    ("code", "severity", "explained"),
    [
        (Code.UPDATE_MISMATCH, Severity.REJECTS, True),
        (Code.UPDATE_MISMATCH, Severity.NOTE, False),
        (Code.STATE_INVALID, Severity.REJECTS, False),
        (Code.LOSS_MISMATCH, Severity.REJECTS, False),
    ],
)
def test_a_cause_is_sought_for_an_update_that_is_rejected_and_for_nothing_else(
    code: Code, severity: Severity, explained: bool
) -> None:
    finding = Finding(code=code, check="a check", severity=severity, message="words")
    assert rejects_update([finding]) == explained
    assert not rejects_update([])


class Sought:
    """`likely_cause`, with a trusted loop that only takes down what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, loaded: LoadedHparams) -> None:
        self.trainings: list[int] = []
        self.broken = False
        self.free = 10**9
        self._root = root
        self._setup = SimpleNamespace(
            hparams=loaded.hparams,
            snapshot=SimpleNamespace(state_bytes=100),
            world_size=2,
            sandbox=None,
            device="cpu",
        )
        monkeypatch.setattr("harness.likely_cause.run_reference", self._train)
        disk = SimpleNamespace(disk_usage=lambda _: self, rmtree=shutil.rmtree)
        monkeypatch.setattr("harness.likely_cause.shutil", disk)

    def _train(self, *_: object, optimizers: list[object], **__: object) -> list[object]:
        (self._root / CHECK).mkdir()
        self.trainings.append(len(optimizers))
        if self.broken:
            raise OSError("no further")
        return optimizers

    def __call__(self, away: float = 0.5) -> Finding | None:
        nothing: dict[str, Any] = {field.name: None for field in fields(Truth)}
        truth = Truth(**nothing | {"reference": SimpleNamespace(coordinates={})})
        work: Any = SimpleNamespace(root=self._root)
        self.trainings.clear()
        found = likely_cause(cast(Any, self._setup), truth, [], away, 1.0, work)
        assert list(self._root.iterdir()) == [], "nothing of the trainings stays"
        return found


@pytest.fixture
def sought(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loaded: LoadedHparams) -> Sought:
    return Sought(monkeypatch, tmp_path, loaded)


@pytest.mark.parametrize(("free", "trainings"), [(399, [1]), (400, [2]), (199, [])])
def test_no_more_is_tried_than_the_disk_has_room_for(
    sought: Sought, free: int, trainings: list[int]
) -> None:
    """A training leaves a state, and is given twice the room."""
    sought.free, sought.broken = free, True
    assert (sought() is None) == (trainings == [])
    assert sought.trainings == trainings


@pytest.mark.parametrize(
    ("away", "check"), [(0.5, CHECK), (0.021, CHECK), (0.019, "tried")], ids=["far", "near", "no"]
)
def test_a_mistake_fits_if_it_is_half_as_far_away_and_within_the_tolerance(
    sought: Sought, monkeypatch: pytest.MonkeyPatch, away: float, check: str
) -> None:
    """What the benchmark allows of an update is more than 0.01."""
    monkeypatch.setattr("harness.likely_cause.update_error", lambda truth, states: 0.01)
    found = sought(away)
    assert found is not None and found.check == check


def test_of_several_versions_the_worst_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: Any = [SimpleNamespace(update_error=error) for error in (0.1, 0.3, 0.2)]
    monkeypatch.setattr("harness.likely_cause.compare", lambda *_: Compared(versions, [], []))
    nothing: Any = None
    assert update_error(nothing, []) == 0.3

    def diverged(*_: object) -> None:
        raise JudgeError(Code.REFERENCE_FAILED, "its weights are not finite")

    monkeypatch.setattr("harness.likely_cause.compare", diverged)
    assert update_error(nothing, []) == math.inf


@pytest.mark.parametrize(
    ("training", "allowed", "count"),
    [(1.0, 0.0, 0), (1.0, 0.9, 0), (1.0, 1.0, 1), (1.0, 2.9, 2), (1.0, 60.0, 3), (0.0, 60.0, 3)],
)
def test_no_more_is_tried_than_there_is_time_for(
    training: float, allowed: float, count: int
) -> None:
    assert affordable([ONE, OTHER, ONE], training, allowed) == count


@pytest.mark.parametrize(
    ("errors", "away", "said"),
    [
        ([1e-6, 0.3], 0.4, "of one"),
        ([0.3, 1e-6], 0.4, "of another"),
        ([0.02, 0.02], 0.05, "of one"),
        ([0.0201, 0.0201], 0.4, None),  # over what an honest run may be off by
        ([0.01, 0.01], 0.02, None),  # hardly nearer than the benchmark's own training
        ([0.0099, 0.01], 0.02, "of one"),
        ([math.inf, math.nan], math.inf, None),
        ([math.nan, 1e-6], 0.4, "of another"),
        ([math.inf, 1e-6], math.inf, "of another"),
    ],
)
def test_the_nearest_mistake_explains_if_it_fits(
    errors: list[float], away: float, said: str | None
) -> None:
    found = fitting([ONE, OTHER], errors, away, allowed=0.02)
    if said is None:
        assert found is None
    else:
        assert found is not None and f"a training {said}: " in found.message
