"""Control groups of sandboxes: made where that is allowed, in both versions, and gone in the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.host.leftovers import clean_up
from harness.sandbox import own_group
from harness.sandbox.own_group import OwnGroup, left_groups
from tests.project import ROOT

GIB = 2**30


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version 2 that is made of files, in which this process is where it may make groups."""
    monkeypatch.setattr(own_group, "ROOT", tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    monkeypatch.setattr(own_group, "_places", lambda: iter([(2, (tmp_path,))]))
    return tmp_path


def files_of(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("")


def test_version_2_gets_all_limits_in_one_folder(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs")
    mkdir = Path.mkdir

    def make(folder: Path) -> None:
        mkdir(folder)
        files_of(folder, *names)

    monkeypatch.setattr(Path, "mkdir", make)
    group = OwnGroup.make(4 * GIB, 528)
    assert group is not None and group.version == 2
    (folder,) = group.folders
    said = {name: (folder / name).read_text() for name in names}
    assert said == {
        "memory.max": "4294967296",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "528",
        "cgroup.procs": "",
    }
    group.join()
    assert (folder / "cgroup.procs").read_text() == "0"


@pytest.mark.parametrize(
    ("version", "file", "text", "killed"),
    [
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        (2, "memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n", True),
        (2, "memory.events", "low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n", False),
        (2, "memory.events", "garbage", False),
        (2, "other", "", False),
    ],
)
def test_the_kernel_s_count_of_kills_is_read(
    tmp_path: Path, version: int, file: str, text: str, killed: bool
) -> None:
    (tmp_path / file).write_text(text)
    assert OwnGroup(version, (tmp_path,)).killed_for_memory() == killed


def test_where_none_may_be_made_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_group, "_places", lambda: iter([(2, (Path("/proc/1"),))]))
    assert OwnGroup.make(GIB, 100) is None
    monkeypatch.setattr(own_group, "_places", lambda: iter([]))
    assert OwnGroup.make(GIB, 100) is None


def test_of_a_group_that_cannot_be_set_up_nothing_is_left(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert OwnGroup.make(GIB, 100) is None
    assert list(second.glob("trainjudge-*")) == []


@pytest.fixture
def real() -> None:
    """Skips where this process may not make one."""
    group = OwnGroup.make(GIB, 100)
    if group is None:
        pytest.skip("this process may make no control groups")
    group.remove()


@pytest.mark.usefixtures("real")
def test_what_joins_a_group_is_killed_by_the_kernel_when_it_takes_too_much() -> None:
    group = OwnGroup.make(64 * 2**20, 100)
    assert group is not None
    try:
        assert not group.killed_for_memory()
        hog = [sys.executable, "-c", "held = bytearray(b'x') * (256 << 20)"]
        assert subprocess.run(hog, preexec_fn=group.join, check=False).returncode == -9
        assert group.killed_for_memory()
    finally:
        group.remove()
    assert not any(folder.exists() for folder in group.folders)


@pytest.mark.usefixtures("real")
def test_the_group_of_a_supervisor_that_was_killed_is_cleaned_up() -> None:
    program = (
        "from harness.sandbox.own_group import OwnGroup; print(*OwnGroup.make(2**30, 9).folders)"
    )
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    folders = [Path(name) for name in made.stdout.split()]
    assert all(folder.is_dir() for folder in folders)
    assert set(folders) <= set(left_groups())
    assert {str(folder) for folder in folders} <= set(clean_up().removed)
    assert not any(folder.exists() for folder in folders)


@pytest.mark.usefixtures("real")
def test_the_group_of_a_supervisor_that_lives_is_left_alone() -> None:
    group = OwnGroup.make(GIB, 100)
    assert group is not None
    try:
        assert not set(group.folders) & set(left_groups())
        assert os.getpid() == int(group.folders[0].name.split("-")[2])
    finally:
        group.remove()
