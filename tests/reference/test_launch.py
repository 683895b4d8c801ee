"""What the reference's sandbox is given."""

from pathlib import Path
from typing import NoReturn

import pytest

from harness.benchmark.challenge import draw
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.reference import launch
from harness.reference.launch import lanes, run_reference
from harness.reference.task import default_variant
from harness.sandbox import Job
from harness.verification import secret_coordinates

pytest_plugins = ("tests.judging",)


class StartedError(Exception):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


class Starts:
    """A sandbox that gets no further."""

    def start(self, job: Job) -> NoReturn:
        raise StartedError(job)


def test_a_calibration_s_two_dozen_runs_have_room_where_a_submission_s_one_would_not(
    loaded: LoadedHparams, snapshot: Snapshot, tmp_path: Path
) -> None:
    """The limit is made for the states of one evaluation; the reference writes records beside them."""
    hparams = loaded.hparams
    drawn = [draw(snapshot.tokens(), hparams) for _ in range(24)]
    with pytest.raises(StartedError) as started:
        run_reference(
            hparams,
            snapshot,
            drawn,
            secret_coordinates(snapshot.layout, hparams),
            default_variant(hparams, 1),
            Starts(),  # type: ignore[arg-type]
            "cpu",
            tmp_path / "reference",
        )
    given = started.value.job.limits
    assert given.outbox_bytes == 25 * hparams.limits.outbox_bytes
    assert given.memory_bytes == hparams.limits.memory_bytes


@pytest.mark.parametrize(
    ("cores", "runs", "different", "wanted"),
    [
        (8, 2, {}, 2),  # no more than there are runs
        (2, 24, {}, 2),  # or cores
        (1, 24, {}, 1),
        (8, 24, {"memory_bytes": 3 * 2**30}, 2),  # or as memory allows
        (8, 24, {"memory_bytes": 2**28}, 1),
    ],
)
def test_runs_of_one_rank_share_the_cores_as_memory_allows(
    loaded: LoadedHparams,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    runs: int,
    different: dict[str, int],
    wanted: int,
) -> None:
    monkeypatch.setattr(launch, "threads_per_rank", lambda world_size: cores // world_size)
    limits = loaded.hparams.limits.model_copy(update=different)
    hparams = loaded.hparams.model_copy(update={"limits": limits})
    alone = default_variant(hparams, 1)
    assert lanes(hparams, alone, "cpu", runs, 2**20) == wanted
    assert lanes(hparams, alone, "cuda", runs, 2**20) == 1
    assert lanes(hparams, alone.model_copy(update={"world_size": 2}), "cpu", runs, 2**20) == 1


def test_a_model_that_fills_memory_is_trained_on_one_run_at_a_time(loaded: LoadedHparams) -> None:
    hparams = loaded.hparams
    large = hparams.limits.memory_bytes // 8
    assert lanes(hparams, default_variant(hparams, 1), "cpu", 24, large) == 1
