"""The folder of one evaluation goes away or is kept, whatever a submission has left in it."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import InputError, SubmissionError
from harness.host.leftovers import clean_up
from harness.sandbox.judge_process import this_process
from harness.timed.workspace import JUDGE, Workspace, check_room, left_folders
from tests.project import ROOT


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than tmp_path."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    if folder.stat().st_dev == tmp_path.stat().st_dev:
        folder.rmdir()
        pytest.skip("/dev/shm is no file system of its own here")
    yield folder
    shutil.rmtree(folder)


def nest(folder: Path, depth: int) -> None:
    """Folders deeper than Python recurses, and their path longer than the kernel allows."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(depth):
            Path("a" * 20).mkdir()
            os.chdir("a" * 20)
        Path("leaf").touch()
    finally:
        os.fchdir(here)
        os.close(here)


def test_folders_nested_without_end_are_removed_and_change_no_verdict(temporary: Path) -> None:
    with pytest.raises(SubmissionError), Workspace() as workspace:
        nest(workspace.outbox, 1_500)
        raise SubmissionError.__new__(SubmissionError)
    assert not list(temporary.iterdir())


def test_links_are_removed_and_not_followed(temporary: Path) -> None:
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "file").touch()
    with Workspace() as workspace:
        (workspace.outbox / "link").symlink_to(precious)
        (workspace.outbox / "closed" / "link").mkdir(parents=True)
        (workspace.outbox / "closed").chmod(0)
    assert list(temporary.iterdir()) == [precious]
    assert list(precious.iterdir())


@pytest.mark.skipif(
    os.geteuid() != 0, reason="becomes another user, who may not pass closed folders"
)
def test_folders_without_permissions_are_removed_by_an_ordinary_user() -> None:
    code = (
        "import os\n"
        "from harness.timed.workspace import Workspace\n"
        "os.setresuid(60699, 60699, 60699)\n"
        "with Workspace() as workspace:\n"
        "    below = workspace.outbox / 'closed' / 'below'\n"
        "    below.mkdir(parents=True); (below / 'file').touch()\n"
        "    for folder in (below, below.parent, workspace.outbox): folder.chmod(0)\n"
        "print(workspace.root.exists())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "False\n", done.stderr


def test_keep_copies_files_to_another_file_system_and_leaves_the_rest(
    temporary: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Workspace(elsewhere / "new" / "kept") as workspace,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        monkeypatch.chdir(workspace.sockets)  # the path from the root may be too long for a socket
        listener.bind("rank0.sock")
        os.mkfifo(workspace.outbox / "fifo")
        (workspace.outbox / "link").symlink_to("/etc/passwd")
        program = workspace.outbox / "program"
        program.write_text("kept")
        program.chmod(0o4755)
    kept = elsewhere / "new" / "kept" / "outbox"
    assert sorted(path.name for path in kept.iterdir()) == ["link", "program"]
    assert (kept / "link").is_symlink()
    assert not (kept / "program").stat().st_mode & stat.S_ISUID
    assert not list(temporary.iterdir())


def test_keep_renames_on_the_same_file_system(temporary: Path) -> None:
    with Workspace(temporary / "kept") as workspace:
        (workspace.private / "file").touch()
    assert (temporary / "kept" / "private" / "file").exists()


def test_a_folder_to_keep_that_cannot_be_made_is_said_before_the_work(temporary: Path) -> None:
    (temporary / "file").touch()
    (temporary / "dangling").symlink_to("nowhere")
    for keep in (temporary / "file" / "kept", temporary / "file", temporary / "dangling"):
        with pytest.raises(InputError):
            Workspace(keep)


def test_an_odd_umask_closes_nothing_that_the_sandbox_needs(temporary: Path) -> None:
    before = os.umask(0o077)
    try:
        with Workspace() as workspace:
            assert stat.S_IMODE(workspace.root.stat().st_mode) == 0o711
            assert stat.S_IMODE(workspace.inbox.stat().st_mode) == 0o755
            assert stat.S_IMODE(workspace.outbox.stat().st_mode) == 0o700
            assert stat.S_IMODE(workspace.private.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def waiting_judge(tmp_path: Path, disposition: str) -> subprocess.Popen[str]:
    """A judge in the middle of its work, started by somebody who left the signals at `disposition`."""
    code = (
        "import signal, time\n"
        "from harness.cli import app\n"
        "from harness.cli.statuses import ENDING_SIGNALS, exit_statuses\n"
        "from harness.timed.workspace import Workspace\n"
        "for number in ENDING_SIGNALS:\n"
        f"    signal.signal(number, signal.{disposition})\n"
        "@app.command()\n"
        "def wait() -> None:\n"
        "    with Workspace():\n"
        "        print('at work', flush=True)\n"
        "        time.sleep(60)\n"
        "with exit_statuses():\n"
        "    app(['wait'])\n"
    )
    judge = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert judge.stdout is not None
    assert judge.stdout.readline() == "at work\n"
    return judge


def test_a_signal_while_the_folder_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("harness.timed.workspace.this_process", lambda: sys.exit(1))
    with pytest.raises(SystemExit):
        Workspace()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_judge_leaves_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    judge = waiting_judge(tmp_path, "SIG_DFL")
    judge.send_signal(number)
    judge.send_signal(number)  # as `timeout` does
    _, errors = judge.communicate(timeout=30)
    assert judge.returncode == 128 + number
    assert "nothing was left behind" in errors
    assert not list(tmp_path.iterdir())


def test_a_judge_under_nohup_goes_on_when_its_terminal_closes(tmp_path: Path) -> None:
    judge = waiting_judge(tmp_path, "SIG_IGN")
    judge.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        judge.wait(timeout=0.5)
    judge.kill()
    judge.communicate()


def test_a_disk_that_is_too_small_is_said_before_the_work(temporary: Path) -> None:
    with pytest.raises(InputError, match="TMPDIR"):
        check_room(2**60)
    check_room(1)


def test_a_folder_is_left_over_once_its_judge_was_killed(temporary: Path) -> None:
    with Workspace() as mine:
        assert left_folders() == []
        ended = subprocess.Popen([sys.executable, "-c", ""])
        owner = this_process().split(" ")
        ended.wait()
        (mine.private / JUDGE).write_text(f"{owner[0]} {ended.pid} {owner[2]}")
        assert left_folders() == [mine.root]
        (mine.private / JUDGE).write_text("something else")
        assert left_folders() == []


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "long"])
def test_what_stands_in_the_place_of_a_judge_s_mark_holds_nobody_up(
    temporary: Path, kind: str
) -> None:
    mark = temporary / "trainjudge-x" / "private" / JUDGE
    mark.parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(mark)
    elif kind == "link":
        mark.symlink_to("/dev/zero")
    elif kind == "folder":
        mark.mkdir()
    else:
        mark.write_text("x" * 2**20)
    assert left_folders() == []


def test_the_folder_of_a_judge_that_was_killed_is_cleaned_up(temporary: Path) -> None:
    judge = subprocess.Popen(
        [sys.executable, "-c", "from harness.timed.workspace import Workspace as W; W(); input()"],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        until = time.monotonic() + 20
        while not list(temporary.glob("trainjudge-*/private/judge")):
            assert time.monotonic() < until
            time.sleep(0.05)
        (folder,) = temporary.glob("trainjudge-*")
        assert str(folder) not in clean_up().removed
    finally:
        judge.kill()
        judge.wait()
    assert str(folder) in clean_up().removed
    assert not folder.exists()
