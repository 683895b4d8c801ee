"""Programs that fork, hoard, flood and fill are ended, and those that stay within limits are not."""

import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from harness.escapes.decoys import processes_with
from harness.sandbox import Ending, EndReason, Level, Sandbox
from harness.sandbox.own_group import OwnGroup, left_groups
from tests.conformance.launches import Spied
from tests.conformance.promises import Promise, kept_by, promised
from tests.sandbox_programs import MIB, make_job, run, wait_for

pytest_plugins = ("tests.sandbox_levels",)


def test_who_stays_within_the_limits_is_let_alone(level: Level, folder: Path) -> None:
    """Pages that are shared count once, 32 tasks are 32 tasks, and no link in the outbox is followed."""
    program = """
import os, sys, threading, time
os.symlink("/usr", sys.argv[1] + "/usr")
os.mkfifo(sys.argv[1] + "/fifo")
held = bytearray(b"x") * (60 << 20)
first = os.getpid()
for _ in range(3):
    os.fork()  # 8 processes with the same 60 MiB: 480 MiB in sum
waiting = [threading.Thread(target=time.sleep, args=(0.6,)) for _ in range(24)]
if os.getpid() == first:
    for thread in waiting:
        thread.start()
time.sleep(0.6)
"""
    limits = {"processes": 32, "memory_bytes": 200 * MIB, "outbox_bytes": MIB}
    ending, log = run(level, make_job(folder, program, str(folder / "outbox"), **limits))
    assert ending == Ending(EndReason.EXITED, 0, "ended with exit status 0"), log


# Tasks.

BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@promised(Promise.TASKS)
def test_a_fork_bomb_is_ended(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    job = replace(make_job(folder, BOMB, processes=32), environment={"MARKER": marker})
    ending, _ = run(level, job)
    assert ending.reason is EndReason.PROCESSES
    assert "32 are allowed" in ending.detail
    assert processes_with(marker) == []


def test_too_many_threads_end_the_sandbox(level: Level, folder: Path) -> None:
    # Bounded: at level `none` no kernel limit stands behind the supervisor's.
    program = """
import threading, time
for _ in range(40):
    threading.Thread(target=time.sleep, args=(60,)).start()
"""
    ending, _ = run(level, make_job(folder, program, processes=32))
    assert ending.reason is EndReason.PROCESSES
    assert "32 are allowed" in ending.detail


# Descriptors: what holds very many of them must not keep the supervisor from its work.

HOARD = """
import os, resource, sys, time
allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
file = os.memfd_create("x")
def hold():
    for _ in range(min(allowed, 8_000) - 20):
        os.dup(file)
for _ in range(60):
    if os.fork() == 0:
        hold()
        time.sleep(600)
open(sys.argv[1] + "/ready", "w").close()
time.sleep(600)
"""


def test_hundreds_of_thousands_of_descriptors_end_the_sandbox(level: Level, folder: Path) -> None:
    began = time.monotonic()
    ending, log = run(level, make_job(folder, HOARD, str(folder / "outbox"), processes=100))
    assert ending.reason is EndReason.PROCESSES, log
    assert ending.detail == "more than 65536 open files in all processes together"
    assert time.monotonic() - began < 20


def test_a_sandbox_is_stopped_at_once_whatever_it_holds_open(level: Level, folder: Path) -> None:
    job = make_job(folder, HOARD, str(folder / "outbox"), processes=100)
    with Sandbox(level).start(job) as running:
        wait_for(folder / "outbox" / "ready")
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 10


# Memory.


@pytest.mark.parametrize(
    "program",
    [
        "import os\n"
        "if os.fork() == 0: held = bytearray(b'x') * (100 << 20); time.sleep(60)\n"
        "os.wait(); sys.exit(1)",  # as torchrun does when a rank is killed
        "import mmap; held = mmap.mmap(-1, 100 << 20); held.write(bytes(100 << 20)); time.sleep(60)",
        "import os; held = os.memfd_create('x')\n"
        "for _ in range(100): os.write(held, bytes(1 << 20))\ntime.sleep(60)",
    ],
    ids=["private-of-a-child", "shared", "unmapped-memory-file"],
)
def test_memory_over_the_limit_ends_the_sandbox(level: Level, folder: Path, program: str) -> None:
    job = make_job(folder, f"import sys, time; {program}", memory_bytes=64 * MIB)
    ending, log = run(level, job)
    assert ending.reason is EndReason.MEMORY, log
    assert "64.0 MiB are allowed" in ending.detail


HOG = """
import mmap, os, sys, time
for n in range(64):
    held = mmap.mmap(-1, 16 << 20)
    held.write(bytes(16 << 20))
    globals()[f"held{n}"] = held
    os.write(1, b"16 MiB more\\n")
time.sleep(60)
"""


def test_where_the_kernel_holds_memory_not_a_moment_passes_over_it(
    level: Level, folder: Path
) -> None:
    """A gibibyte is filled between two looks: what was had is told by the program itself.

    Where no group can be made, polling alone ends it, some moments later.
    """
    group = OwnGroup.make(2**30, 100)
    if group is not None:
        group.remove()
    before = set(left_groups())
    allowed, margin = 64 * MIB, 2 * 16 * MIB
    job = make_job(folder, HOG, memory_bytes=allowed, tmp_bytes=16 * MIB)
    ending, log = run(level, job)
    assert ending.reason is EndReason.MEMORY, log
    if group is not None or level is Level.DOCKER:
        assert log.count("16 MiB more") * 16 * MIB <= allowed + margin
    assert set(left_groups()) <= before


def test_a_sandbox_is_the_first_to_go_when_the_machine_is_out_of_memory(spied: Spied) -> None:
    assert spied.facts["oom_score"] == 1000


# Files.


def test_temporary_files_are_limited(level: Level, folder: Path) -> None:
    program = """
import os, time
with open(os.environ["TMPDIR"] + "/big", "wb") as file:
    for _ in range(20):
        file.write(bytes(1 << 20))
time.sleep(60)
"""
    ending, log = run(level, make_job(folder, program, tmp_bytes=16 * MIB))
    if Promise.TEMPORARY in kept_by(level):
        assert "No space left on device" in log
    else:
        assert ending.reason is EndReason.OUTBOX
        assert "temporary folder" in ending.detail


@pytest.mark.parametrize(
    "program",
    [
        "for n in range(20): open(f'{box}/{n}', 'wb').write(bytes(1 << 20))\ntime.sleep(60)",
        # Only the look at the end can see these.
        "os.truncate(os.open(f'{box}/sparse', os.O_CREAT | os.O_WRONLY), 17 << 20)",
        "for n in range(40): box += '/d'; os.mkdir(box)",
    ],
    ids=["many-files", "sparse-at-the-last-moment", "deep-at-the-last-moment"],
)
def test_an_outbox_over_its_limit_ends_the_sandbox(
    level: Level, folder: Path, program: str
) -> None:
    job = make_job(
        folder,
        f"import os, sys, time; box = sys.argv[1]\n{program}",
        str(folder / "outbox"),
        outbox_bytes=16 * MIB,
        tmp_bytes=16 * MIB,
    )
    ending, log = run(level, job)
    assert ending.reason is EndReason.OUTBOX, log
    assert "the outbox" in ending.detail


def test_limits_of_the_kernel_for_a_process_are_in_force(spied: Spied) -> None:
    limits = spied.facts["resource_limits"]
    # The larger of the outbox's 8 and the temporary folder's 24 MiB, and one more.
    assert limits["a file"] == [25 * MIB, 25 * MIB]
    assert limits["open files"] == [8192, 8192]
    assert limits["core"] == limits["queues"] == limits["real time"] == [0, 0]


# Output.


def test_a_flood_of_output_neither_blocks_nor_fills(level: Level, folder: Path) -> None:
    program = """
import sys
sys.stdout.write("first words\\n"); sys.stdout.flush()
for _ in range(16):
    sys.stdout.write("x" * (1 << 20)); sys.stdout.flush()
sys.stderr.write("\\nlast words\\n")
"""
    ending, log = run(level, make_job(folder, program, log_bytes=64 * 1024))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0)
    assert log.startswith("first words\n")
    assert log.endswith("\nlast words\n")
    assert f"[... {16 * MIB + 24 - 64 * 1024} bytes cut ...]" in log
    assert len(log) < 65 * 1024
