"""Runs that are shared out to processes: every one is done once, and one that fails fails all."""

import os
from pathlib import Path

import pytest

from harness.reference.lanes import in_lanes


def test_every_lane_does_its_work_in_a_process_of_its_own(tmp_path: Path) -> None:
    def work(lane: int) -> None:
        (tmp_path / str(lane)).write_text(str(os.getpid()))

    in_lanes(work, 3)
    processes = {int((tmp_path / str(lane)).read_text()) for lane in range(3)}
    assert len(processes) == 3
    assert os.getpid() not in processes


def test_a_lane_that_fails_says_why_and_fails_all(capfd: pytest.CaptureFixture[str]) -> None:
    def work(lane: int) -> None:
        if lane == 1:
            raise ValueError("the disk is full")

    with pytest.raises(RuntimeError, match="1 of 3 lanes failed"):
        in_lanes(work, 3)
    assert "ValueError: the disk is full" in capfd.readouterr().err


def test_a_lane_that_is_killed_fails_all() -> None:
    def work(lane: int) -> None:
        if lane == 0:
            os.kill(os.getpid(), 9)

    with pytest.raises(RuntimeError, match="1 of 2 lanes failed"):
        in_lanes(work, 2)
