"""What happens to the judge's own side: reference, sockets, disk, the judge itself; each at its moment.

`TABLE` stands in docs/security.md, as that of test_faults.py does.
"""

import gc
import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.phases import PhaseName
from harness.sandbox import Sandbox
from harness.sandbox.judge_process import this_process
from harness.sandbox.process_tree import descendants, read_process
from harness.sandbox.removal import remove_tree
from harness.timed.session import Session
from harness.timed.workspace import JUDGE, PREFIX
from tests.faults.staging import TRAIN, benchmark, found_soon, judge, nothing_left
from tests.judging import explain
from tests.project import ROOT

__all__ = ["benchmark"]  # a fixture

pytest_plugins = ("tests.judging",)

MIB: Final = 2**20
#: Of the disk that is filled: the outbox's limit, the states, and what an evaluation writes beside them.
DISK_BYTES: Final = 400 * MIB


def kill_reference() -> None:
    _soon(lambda: os.kill(found_soon("the reference"), signal.SIGKILL))


def stop_reference() -> None:
    _soon(lambda: os.kill(found_soon("the reference"), signal.SIGSTOP))


def pause_rank() -> None:
    rank = found_soon("a rank")
    os.kill(rank, signal.SIGSTOP)
    threading.Timer(1.0, os.kill, (rank, signal.SIGCONT)).start()


def cut_a_rank_off() -> None:
    (session,) = (each for each in gc.get_objects() if isinstance(each, Session))
    connection = session._links[1].connection
    assert connection is not None
    connection.shutdown(socket.SHUT_RDWR)


def fill_disk() -> None:
    folder = Path(tempfile.gettempdir())
    with (folder / "of somebody else").open("wb", buffering=0) as file:
        while file.write(bytes(MIB)) == MIB:
            if shutil.disk_usage(folder).free < 2 * MIB:
                break


#: What happens, when, and the verdict.
TABLE: Final[dict[str, tuple[PhaseName, Callable[[], None], str]]] = {
    "the reference is killed": (PhaseName.REFERENCE, kill_reference, "error: reference_failed"),
    "the reference is stopped": (PhaseName.REFERENCE, stop_reference, "error: reference_failed"),
    "a rank is paused for a second": (PhaseName.TIMED, pause_rank, "accepted: ok"),
    "a rank is cut off from the judge": (PhaseName.TIMED, cut_a_rank_off, "rejected: rank_exited"),
    "others fill the disk before a state is opened": (
        PhaseName.OPEN,
        fill_disk,
        "error: disk_full",
    ),
    "others fill the disk before the reference writes": (
        PhaseName.REFERENCE,
        fill_disk,
        "error: internal",
    ),
}


def _soon(deed: Callable[[], object]) -> None:
    """In a thread, since what is to be hit starts only when the phase has been entered."""
    threading.Thread(target=deed, daemon=True).start()


@pytest.fixture
def own_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small file system that work folders lie on."""
    disk = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=711", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        disk.rmdir()
        pytest.skip("a file system of its own takes root, and the right to mount")
    # Its import makes a folder where temporary files lie, once in a process: not on this disk.
    importlib.import_module("torch._inductor.config")
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
    disk.rmdir()


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("what", TABLE)
def test_the_judges_own_side(
    what: str, benchmark: LoadedHparams, sandbox: Sandbox, request: pytest.FixtureRequest
) -> None:
    phase, happens, expected = TABLE[what]
    if sandbox.level == "docker":
        pytest.skip(
            "inside a container ranks are no children of ours, and the disk is the engine's"
        )
    disk = request.getfixturevalue("own_disk") if happens is fill_disk else None
    began = time.monotonic()
    with nothing_left():
        result = judge(benchmark, sandbox, phase, happens)
        assert f"{result.verdict}: {result.code}" == expected, explain(result)
        assert time.monotonic() - began < 120
    if disk is not None:
        assert [path.name for path in disk.iterdir()] == ["of somebody else"]


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("said", ["timed run", "opening", "reference"])
def test_a_judge_that_is_killed_leaves_no_process(said: str, benchmark: LoadedHparams) -> None:
    """A folder is left, which the next `validator clean` finds, and which disturbs nobody."""
    # Not below tmp_path: with the name of a process of pytest-xdist in it, sockets' paths were too long.
    folder = Path(tempfile.mkdtemp(prefix="killed-"))
    folder.chmod(0o711)
    before = {process.pid for process in descendants()}
    command = [sys.executable, "-m", "harness.cli", "run", str(TRAIN)]
    command += ["--hparams", str(benchmark.path), "--runs", "1"]
    environment = os.environ | {"TMPDIR": str(folder)}
    judging = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert judging.stdout is not None
    told = []
    for line in judging.stdout:
        told.append(line)
        if said in line:
            break
    else:
        pytest.fail(f"it never said that it was {said}:\n{''.join(told)}")
    below = {process.pid for process in descendants()} - before - {judging.pid}
    assert below
    judging.kill()
    judging.wait()
    until = time.monotonic() + 30
    while (left := [pid for pid in below if _alive(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
    remove_tree(folder)


def _alive(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.alive


@pytest.mark.slow
@pytest.mark.faults
def test_the_next_evaluation_works(benchmark: LoadedHparams, sandbox: Sandbox) -> None:
    result = judge(benchmark, sandbox, PhaseName.TIMED, lambda: None)
    assert str(result.verdict) == "accepted", explain(result)
    # Of all evaluations of this process, and of no other: someone else's may be under way, or left.
    roots = Path(tempfile.gettempdir()).glob(f"{PREFIX}*")
    assert not [root for root in roots if judge_of(root) == this_process()]


def judge_of(root: Path) -> str:
    mark = root / "private" / JUDGE
    return mark.read_text("ascii") if mark.is_file() else ""


def test_the_table_stands_in_the_manual() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for what, (_, _, verdict) in TABLE.items():
        assert re.search(re.escape(f"| {what} | {verdict} |"), page), what
