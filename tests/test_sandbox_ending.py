"""However a sandbox ends, and however its programs hide: nothing of it is left."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from sandbox_programs import HEADS, hydra, make_job, processes_with, run, wait_for, wait_until_none

from harness.sandbox import Ending, EndReason, Job, Level, Sandbox

pytest_plugins = ("sandbox_levels",)
REPOSITORY = Path(__file__).resolve().parents[1]


def test_stopping_ends_forked_doubly_forked_and_deaf_processes(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with Sandbox(level).start(hydra(folder, "stay", marker)) as running:
        for name in HEADS:
            wait_for(folder / "outbox" / name)
        assert len(processes_with(marker)) >= len(HEADS)
        assert running.stop().reason is EndReason.STOPPED
        # No waiting here: stop() has to mean that they are gone.
        assert processes_with(marker) == []


def test_nothing_survives_the_commands_own_exit(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with Sandbox(level).start(hydra(folder, "leave", marker)) as running:
        assert select.select([running], [], [], 30)[0]
        assert running.ended() == Ending(EndReason.EXITED, 0, "ended with exit status 0")
        assert processes_with(marker) == []


def test_nothing_survives_an_exception_in_the_judge(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with (
        pytest.raises(KeyboardInterrupt),
        Sandbox(level).start(hydra(folder, "stay", marker)),
    ):
        wait_for(folder / "outbox" / "hoarded")
        raise KeyboardInterrupt
    assert processes_with(marker) == []


def test_nothing_survives_a_judge_that_is_killed(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    hydra(folder, "stay", marker)  # writes the program
    judge = subprocess.Popen(
        [sys.executable, "-c", JUDGE, str(level), str(folder), marker], cwd=REPOSITORY
    )
    try:
        for name in HEADS:
            wait_for(folder / "outbox" / name)
    finally:
        judge.send_signal(signal.SIGKILL)
        judge.wait()
    wait_until_none(marker)


JUDGE = """
import sys, time
from pathlib import Path
sys.path[:0] = [".", "tests"]
from sandbox_programs import hydra
from harness.sandbox import Level, Sandbox
with Sandbox(Level(sys.argv[1])).start(hydra(Path(sys.argv[2]), "stay", sys.argv[3])):
    time.sleep(600)
"""


def test_an_ending_is_told_once_and_stays(level: Level, folder: Path) -> None:
    with Sandbox(level).start(make_job(folder, "import sys; sys.exit(7)")) as running:
        assert select.select([running], [], [], 30)[0]
        first = running.ended()
        assert first == Ending(EndReason.EXITED, 7, "ended with exit status 7")
        assert running.stop() == running.stop() == running.ended() == first


def test_a_running_sandbox_has_no_ending(level: Level, folder: Path) -> None:
    with Sandbox(level).start(make_job(folder, "import time; time.sleep(600)")) as running:
        assert select.select([running], [], [], 0.3)[0] == []
        assert running.ended() is None


def test_a_command_that_dies_by_a_signal_says_so(level: Level, folder: Path) -> None:
    ending, _ = run(level, make_job(folder, "import os; os.kill(os.getpid(), 11)"))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 128 + 11)


def test_temporary_files_do_not_outlive_a_sandbox(isolated: Level, folder: Path) -> None:
    name = f"left-{uuid.uuid4().hex}"
    program = f"""
import os
for place in ("/tmp", "/dev/shm", os.environ["TMPDIR"]):
    os.makedirs(f"{{place}}/{name}/sub")
    open(f"{{place}}/{name}-file", "w").close()
    break_out = f"{{place}}/{name}/link"
    os.symlink("/usr", break_out)
    if place == os.environ["TMPDIR"] == "/tmp":
        break
"""
    ending, log = run(isolated, make_job(folder, program))
    assert ending.exit_status in (0, 1), log
    left = [path for place in ("/tmp", "/dev/shm") for path in Path(place).glob(f"*{name}*")]
    assert left == []
    assert Path("/usr/bin").is_dir()


def test_temporary_folders_nested_without_end_are_removed_and_cost_no_verdict(
    level: Level, folder: Path
) -> None:
    program = """
import os
os.chdir(os.environ["TMPDIR"])
for _ in range(1500):
    os.mkdir("deep")
    os.chdir("deep")
"""
    before = set(Path(tempfile.gettempdir()).glob("trainjudge-tmp-*"))
    ending, log = run(level, make_job(folder, program))  # raises if the supervisor broke down
    # Where the temporary folder is watched, so deep a one may be seen as over its limit first.
    assert ending.reason in (EndReason.EXITED, EndReason.OUTBOX), log
    assert set(Path(tempfile.gettempdir()).glob("trainjudge-tmp-*")) <= before


def test_the_next_sandbox_cannot_reach_what_the_last_one_wrote(
    isolated: Level, folder: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("this test run is not root")
    run(isolated, make_job(folder, ""))
    status = (folder / "outbox").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o700)


def test_a_command_that_does_not_exist_ends_with_a_status(level: Level, folder: Path) -> None:
    job = make_job(folder, "")
    ending, log = run(level, Job(**{**vars(job), "argv": ("/no/such/program",)}))
    assert ending.reason is EndReason.EXITED and ending.exit_status != 0
    assert "FileNotFoundError" in log
