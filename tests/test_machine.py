"""What is counted for the MFU is what a sandbox can reach."""

import os
from pathlib import Path

import pytest

from harness import machine


def test_cores_that_a_process_may_take_are_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank can widen the affinity that it was started with; only a cpuset holds it."""
    before = os.sched_getaffinity(0)
    everything = machine.reachable_cores()
    try:
        os.sched_setaffinity(0, [min(before)])
        assert machine.cores() == 1
        assert machine.reachable_cores() == everything >= len(before)
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_where_affinity_cannot_be_changed_it_cannot_be_widened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int, cores: object) -> None:
        if cores != os.sched_getaffinity(0):
            raise OSError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert machine.reachable_cores() == len(os.sched_getaffinity(0))


def test_every_gpu_of_the_machine_is_counted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "nvidia0",
        "nvidia1",
        "nvidia10",
        "nvidiactl",
        "nvidia-uvm",
        "nvidia-caps",
        "null",
    ):
        (tmp_path / name).touch()
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    assert machine.gpu_files() == 3
