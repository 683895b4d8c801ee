"""What the reference's sandbox is given."""

from pathlib import Path
from typing import NoReturn

import pytest

from harness.benchmark.challenge import draw
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.reference.launch import run_reference
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
