"""What others did with the cores: only what is surely theirs, so that nobody's own load excuses them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.sandbox.process_tree import Process, every_process
from harness.timed import others
from harness.timed.others import Reading, others_share

BURN = "while True: pass"


@contextmanager
def burning(*, apart: bool) -> Iterator[int]:
    """A process that keeps a core busy; apart: it is no descendant of ours."""
    if not apart:
        child = subprocess.Popen([sys.executable, "-c", BURN])
        pid = child.pid
    else:
        program = (
            "import os, sys\n"
            "pid = os.fork()\n"
            "if pid: print(pid, flush=True); os._exit(0)\n"
            "os.setsid(); os.close(1)\n" + BURN
        )
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
        pid = int(done.stdout)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        if not apart:
            child.wait()


def seconds_of(reading: Reading, pid: int) -> float | None:
    return next((spent for key, spent in reading.seconds.items() if key[0] == pid), None)


def test_a_program_of_somebody_else_is_counted() -> None:
    with burning(apart=True) as pid:
        before = Reading.now()
        time.sleep(1)
        after = Reading.now()
    then, now = seconds_of(before, pid), seconds_of(after, pid)
    assert then is not None and now is not None and now > then
    least = (now - then) / (after.at - before.at) / (os.cpu_count() or 1)
    assert others_share(before, after) >= least > 0


def test_what_is_below_us_is_ours() -> None:
    with burning(apart=False) as pid:
        assert seconds_of(Reading.now(), pid) is None


def test_what_began_meanwhile_excuses_nobody() -> None:
    """Whoever can start programs elsewhere could start many short ones."""
    before = Reading.now()
    with burning(apart=True) as pid:
        time.sleep(0.3)
        after = Reading.now()
    assert seconds_of(after, pid) is not None
    alone = Reading(after.at, {key: spent for key, spent in after.seconds.items() if key[0] == pid})
    assert others_share(before, alone) == 0.0


@pytest.mark.parametrize("name", ["dockerd", "containerd-shim", "podman"])
def test_a_container_engine_works_for_the_sandbox(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever floods its output makes the engine busy."""

    def process(pid: int, start: int, parent: int, name: str, seconds: int) -> Process:
        ticks = seconds * os.sysconf("SC_CLK_TCK")
        return Process(pid, parent, threads=1, start=start, state="S", name=name, ticks=ticks)

    processes = [
        process(100, 5, 1, name, 40),
        process(101, 6, 1, "postgres", 30),
        process(102, 7, 2, "kworker/0:1", 20),
        process(2, 1, 0, "kthreadd", 10),
    ]
    monkeypatch.setattr(others, "every_process", lambda: iter(processes))
    assert Reading.now().seconds == {(101, 6): 30.0}


def test_the_share_is_of_all_cores_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = Reading(100.0, {(1, 1): 10.0, (2, 2): 5.0})
    assert others_share(before, Reading(110.0, {(1, 1): 18.0, (2, 2): 5.0})) == 0.2
    assert others_share(before, Reading(110.0, {(1, 1): 10.0, (2, 3): 50.0})) == 0.0
    assert others_share(before, Reading(110.0, {(1, 1): 9_999.0})) == 1.0
    assert others_share(before, before) == 0.0


def test_a_name_may_hold_anything() -> None:
    program = (
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b') R 1 (x'); print('', flush=True); "
        "time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        found = next(each for each in every_process() if each.pid == child.pid)
        assert (found.name, found.parent) == (") R 1 (x", os.getpid())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
