"""Programs that fork, hoard, flood and fill are ended, and those that stay within limits are not."""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from sandbox_programs import MIB, make_job, processes_with, run

from harness.sandbox import EndReason, Job, Level
from harness.sandbox.watch import Log, TooManyEntriesError, folder_bytes

pytest_plugins = ("sandbox_levels",)

ROOT = Path(__file__).resolve().parent.parent

BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def test_a_fork_bomb_is_ended(isolated: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    job = make_job(folder, BOMB, processes=32)
    ending, _ = run(isolated, Job(**{**vars(job), "environment": {"MARKER": marker}}))
    assert ending.reason is EndReason.PROCESSES
    assert "32 are allowed" in ending.detail
    assert processes_with(marker) == []


def test_too_many_processes_or_threads_end_the_sandbox(level: Level, folder: Path) -> None:
    # Bounded: at level `none` no kernel limit stands behind the supervisor's.
    program = """
import threading, time
for _ in range(40):
    threading.Thread(target=time.sleep, args=(60,)).start()
"""
    ending, _ = run(level, make_job(folder, program, processes=32))
    assert ending.reason is EndReason.PROCESSES


def test_as_many_processes_as_allowed_are_no_offence(level: Level, folder: Path) -> None:
    program = """
import threading, time
threads = [threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(31)]
for t in threads: t.start()
"""
    ending, log = run(level, make_job(folder, program, processes=32))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), log


@pytest.mark.parametrize(
    "program",
    [
        "import time; held = bytearray(b'x') * (200 << 20); time.sleep(60)",
        "import mmap, time; m = mmap.mmap(-1, 200 << 20); m.write(bytes(200 << 20)); time.sleep(60)",
        "import os, time; f = os.memfd_create('x')\n"
        "for _ in range(200): os.write(f, bytes(1 << 20))\ntime.sleep(60)",
    ],
    ids=["private", "shared", "unmapped-memory-file"],
)
def test_memory_over_the_limit_ends_the_sandbox(level: Level, folder: Path, program: str) -> None:
    ending, log = run(level, make_job(folder, program, memory_bytes=128 * MIB))
    assert ending.reason is EndReason.MEMORY, log
    assert "128.0 MiB are allowed" in ending.detail


def test_memory_that_processes_share_counts_once(level: Level, folder: Path) -> None:
    program = """
import os, time
held = bytearray(b"x") * (60 << 20)
for _ in range(3):
    os.fork()
time.sleep(0.6)
"""
    # 8 processes with the same 60 MiB: 480 MiB resident in sum.
    ending, log = run(level, make_job(folder, program, memory_bytes=200 * MIB))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), (ending, log)


def test_temporary_files_are_limited(level: Level, folder: Path) -> None:
    program = """
import os, time
with open(os.environ["TMPDIR"] + "/big", "wb") as file:
    for _ in range(40):
        file.write(bytes(1 << 20))
time.sleep(60)
"""
    ending, log = run(level, make_job(folder, program, tmp_bytes=16 * MIB))
    if level in (Level.DOCKER, Level.BUBBLEWRAP):
        assert "No space left on device" in log  # a tmpfs of that size
    else:
        assert ending.reason is EndReason.OUTBOX
        assert "temporary folder" in ending.detail


@pytest.mark.parametrize(
    "program",
    [
        "for n in range(40): open(f'{box}/{n}', 'wb').write(bytes(1 << 20))\ntime.sleep(60)",
        "os.truncate(os.open(f'{box}/sparse', os.O_CREAT | os.O_WRONLY), 17 << 20)\ntime.sleep(60)",
        "for n in range(40): box += '/d'; os.mkdir(box)\ntime.sleep(60)",
        "for n in range(40): open(f'{box}/{n}', 'wb').write(bytes(1 << 20))",
    ],
    ids=["many-files", "sparse", "deep", "at-the-last-moment"],
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


def test_a_sparse_giant_cannot_even_be_made(level: Level, folder: Path) -> None:
    program = "import os, sys; os.truncate(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), 1 << 44)"
    ending, log = run(level, make_job(folder, program, str(folder / "outbox" / "giant")))
    assert ending.exit_status not in (0, None), log
    assert (folder / "outbox" / "giant").stat().st_size == 0


def test_links_in_the_outbox_are_not_followed(level: Level, folder: Path) -> None:
    program = (
        "import os, sys; os.symlink('/usr', sys.argv[1] + '/usr'); os.mkfifo(sys.argv[1] + '/f')"
    )
    job = make_job(folder, program, str(folder / "outbox"), outbox_bytes=MIB)
    ending, log = run(level, job)
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), log


def test_a_flood_of_output_neither_blocks_nor_fills(level: Level, folder: Path) -> None:
    program = """
import sys
sys.stdout.write("first words\\n"); sys.stdout.flush()
for _ in range(64):
    sys.stdout.write("x" * (1 << 20)); sys.stdout.flush()
sys.stderr.write("\\nlast words\\n")
"""
    ending, log = run(level, make_job(folder, program, log_bytes=64 * 1024))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0)
    assert log.startswith("first words\n")
    assert log.endswith("\nlast words\n")
    assert f"[... {64 * MIB + 24 - 64 * 1024} bytes cut ...]" in log
    assert len(log) < 65 * 1024


def test_a_log_cannot_steer_the_terminal(level: Level, folder: Path) -> None:
    program = r"import os; os.write(1, b'\x1b[2Jcleared \x07 \xff \xe2\x80\xae evil\r\nend')"
    _, log = run(level, make_job(folder, program))
    assert log == "\ufffd[2Jcleared \ufffd \ufffd \ufffd evil\nend"


@pytest.mark.parametrize("portion", [1, 3, 7, 64, 1000])
def test_a_log_keeps_its_ends_whatever_the_portions(portion: int) -> None:
    text = "".join(f"{number:04d}" for number in range(500))
    for length in (0, 5, 63, 64, 65, 127, 128, 129, 200, 2000):
        log = Log.create(128)
        try:
            for start in range(0, length, portion):
                log.append(text[start : min(start + portion, length)].encode())
            if length <= 128:
                assert log.read() == text[:length]
            else:
                cut = f"\n[... {length - 128} bytes cut ...]\n"
                assert log.read() == text[:64] + cut + text[length - 64 : length]
        finally:
            os.close(log.file)


def test_a_folder_of_too_many_files_is_not_measured_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.sandbox.watch.MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(TooManyEntriesError):
        folder_bytes(str(tmp_path))


@pytest.mark.parametrize("closed", [".", "sub"])
def test_a_folder_that_is_closed_to_the_judge_counts_as_over_the_limit(
    closed: str,
) -> None:
    """A judge that is an ordinary user, and a submission of the same user that hides what it wrote."""
    shared = Path(tempfile.mkdtemp(prefix="closed-"))  # tmp_path lets no other user in
    outbox = shared / "outbox"
    (outbox / "sub").mkdir(parents=True)
    shared.chmod(0o755)
    (outbox / closed).chmod(0o300)
    measure = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from harness.sandbox.watch import TooManyEntriesError, folder_bytes\n"
        "os.geteuid() or os.setuid(60_000)\n"
        "try: folder_bytes(sys.argv[2])\n"
        "except TooManyEntriesError: print('refused')\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-I", "-S", "-c", measure, ROOT, outbox],
        capture_output=True,
        text=True,
        check=False,
    )
    (outbox / closed).chmod(0o755)
    shutil.rmtree(shared)
    assert outcome.stdout.strip() == "refused", outcome.stderr
