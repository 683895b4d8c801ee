"""One evaluation at a time on a machine: waited for, told, and free whatever becomes of its holder."""

import os
import signal
import subprocess
import sys
import threading
import time
from uuid import uuid4

import pytest

from harness.host import timing
from harness.host.timing import HELD, hold_machine, machine_held

HOLDER = """
import sys, time
from harness.host.timing import machine_held
with machine_held(lambda: None, sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv(HELD, raising=False)
    monkeypatch.setattr(timing, "LOOK_SECONDS", 0.02)
    return f"\0test-{uuid4()}"


def test_nobody_else_times_while_it_is_held_and_anybody_after(lock: str) -> None:
    told: list[int] = []
    with machine_held(lambda: told.append(1), lock):
        assert hold_machine(lock) is None
    again = hold_machine(lock)
    assert again is not None
    again.close()
    assert told == []


def test_who_finds_it_held_waits_and_is_told_once(lock: str) -> None:
    held = hold_machine(lock)
    assert held is not None
    threading.Timer(0.3, held.close).start()
    told: list[float] = []
    began = time.monotonic()
    with machine_held(lambda: told.append(time.monotonic()), lock):
        waited = time.monotonic() - began
    assert waited >= 0.25
    assert len(told) == 1


def test_an_evaluation_that_fails_lets_it_go(lock: str) -> None:
    with pytest.raises(ValueError, match="no"), machine_held(lambda: None, lock):
        raise ValueError("no")
    again = hold_machine(lock)
    assert again is not None
    again.close()


def test_a_killed_judge_leaves_nothing_behind(lock: str) -> None:
    name = lock[1:]
    program = HOLDER.replace("sys.argv[1]", "'\\0' + sys.argv[1]")
    holder = subprocess.Popen([sys.executable, "-c", program, name], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert hold_machine(lock) is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    again = hold_machine(lock)
    assert again is not None
    again.close()


def test_a_judge_whose_parent_holds_it_does_not_wait_for_its_parent(
    lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold_machine(lock)
    assert held is not None
    monkeypatch.setenv(HELD, "1")
    with held, machine_held(lambda: pytest.fail("told to wait"), lock):
        pass
