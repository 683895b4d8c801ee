"""However a sandbox ends, and however its programs hide: nothing of it is left."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.escapes.decoys import processes_with
from harness.sandbox import Ending, EndReason, Level, Sandbox
from tests.conformance.launches import Pair, Spied
from tests.conformance.promises import Promise, kept_by
from tests.project import ROOT
from tests.sandbox_levels import work_folder
from tests.sandbox_programs import (
    HEADS,
    ended_by_itself,
    hydra,
    make_job,
    run,
    wait_for,
    wait_until_none,
)

pytest_plugins = ("tests.sandbox_levels",)


# Nothing is left.


def test_stopping_ends_forked_doubly_forked_and_deaf_processes(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with Sandbox(level).start(hydra(folder, "stay", marker)) as running:
        for name in HEADS:
            wait_for(folder / "outbox" / name, 30)
        assert len(processes_with(marker)) >= len(HEADS)
        assert running.stop() == Ending(EndReason.STOPPED, None, "stopped by the judge")
        # No waiting here: stop() has to mean that they are gone.
        assert processes_with(marker) == []


def test_nothing_survives_the_commands_own_exit(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with Sandbox(level).start(hydra(folder, "leave", marker)) as running:
        assert ended_by_itself(running) == Ending(EndReason.EXITED, 0, "ended with exit status 0")
        assert processes_with(marker) == []


def test_nothing_survives_an_exception_in_the_judge(pair: Pair) -> None:
    assert pair.left == []


JUDGE = """
import sys, time
from pathlib import Path
sys.path[:0] = ["."]
from tests.sandbox_programs import hydra
from harness.sandbox import Level, Sandbox
with Sandbox(Level(sys.argv[1])).start(hydra(Path(sys.argv[2]), "stay", sys.argv[3])):
    time.sleep(600)
"""


def test_nothing_survives_a_judge_that_is_killed(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    hydra(folder, "stay", marker)  # writes the program
    judge = subprocess.Popen(
        [sys.executable, "-c", JUDGE, str(level), str(folder), marker], cwd=ROOT
    )
    try:
        for name in HEADS:
            wait_for(folder / "outbox" / name, 30)
    finally:
        judge.send_signal(signal.SIGKILL)
        judge.wait()
    wait_until_none(marker, 30)


def test_temporary_folders_nested_without_end_are_removed_and_cost_no_verdict(
    level: Level, folder: Path
) -> None:
    program = """
import os
print(os.environ["TMPDIR"], flush=True)
os.chdir(os.environ["TMPDIR"])
for _ in range(1500):
    os.mkdir("deep")
    os.chdir("deep")
"""
    ending, log = run(level, make_job(folder, program))  # raises if the supervisor broke down
    # Where the temporary folder is watched, so deep a one may be seen as over its limit first.
    assert ending.reason in (EndReason.EXITED, EndReason.OUTBOX), log
    own = Path(log.splitlines()[0])
    assert not (own / "deep").exists()
    assert Promise.TEMPORARY in kept_by(level) or not own.exists()


# What is told.


def test_an_ending_is_told_once_and_stays(spied: Spied) -> None:
    assert spied.told == (Ending(EndReason.EXITED, 7, "ended with exit status 7"),) * 4


def test_a_running_sandbox_has_no_ending(pair: Pair) -> None:
    assert pair.endings == (None, None)


def test_a_command_that_does_not_exist_ends_with_a_status(level: Level, folder: Path) -> None:
    job = replace(make_job(folder, ""), argv=("/no/such/program",))
    ending, log = run(level, job)
    assert ending.reason is EndReason.EXITED and ending.exit_status not in (0, None)
    assert "FileNotFoundError" in log


@pytest.fixture(scope="module")
def shot(level: Level) -> Iterator[tuple[Ending, Path]]:
    """A program that the kernel ends for a sparse file of 16 TiB, and that file."""
    program = """
import os, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
try:
    os.truncate(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), 1 << 44)
except OSError:  # refused in the other way that it may be
    os.kill(os.getpid(), signal.SIGXFSZ)
"""
    with work_folder() as folder:
        giant = folder / "outbox" / "giant"
        ending, _ = run(level, make_job(folder, program, str(giant)))
        yield ending, giant


def test_a_command_that_dies_by_a_signal_says_so(shot: tuple[Ending, Path]) -> None:
    assert (shot[0].reason, shot[0].exit_status) == (EndReason.EXITED, 128 + 25)


def test_a_sparse_giant_cannot_even_be_made(shot: tuple[Ending, Path]) -> None:
    assert shot[1].stat().st_size == 0
