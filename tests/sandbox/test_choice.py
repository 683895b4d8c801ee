"""Which level a judge gets, which it is refused, and what a sandbox is given to run."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import Code, InputError
from harness.sandbox import Level, choose, code_folder, user
from harness.sandbox.user import unreachable
from tests.sandbox_levels import Available

pytest_plugins = ("tests.sandbox_levels",)


def test_auto_takes_the_best_level_that_works(available: Available) -> None:
    # Level docker comes first only where its image is known to be of the benchmark.
    without = (Level.BUBBLEWRAP, Level.USER, Level.NONE)
    assert choose("auto").level is next(level for level in without if available[level].available)


def test_bubblewrap_is_available_where_bwrap_can_make_namespaces(
    available: Available,
) -> None:
    """Without this, a broken sandbox would only skip the tests of its level."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("bwrap is not installed")
    trial = ["--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    result = subprocess.run([bwrap, *trial], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"bwrap cannot make namespaces here: {result.stderr.strip()}")
    assert available[Level.BUBBLEWRAP].available, available[Level.BUBBLEWRAP].reason


def test_a_level_that_does_not_work_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without bwrap
    with pytest.raises(InputError, match="apt-get install bubblewrap") as caught:
        choose(Level.BUBBLEWRAP)
    assert caught.value.code is Code.SANDBOX_UNAVAILABLE
    assert choose("auto").level is not Level.BUBBLEWRAP


def test_auto_inside_the_container_never_takes_no_isolation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINJUDGE_CONTAINER", "1")
    monkeypatch.setenv("PATH", str(tmp_path))  # no bwrap there
    monkeypatch.setattr(user, "unavailable", lambda: "no capability to change the user")
    with pytest.raises(InputError, match="user: no capability to change the user") as caught:
        choose("auto")
    assert caught.value.code is Code.SANDBOX_UNAVAILABLE
    monkeypatch.delenv("TRAINJUDGE_CONTAINER")
    assert choose("auto").level is Level.NONE


def test_a_name_that_is_no_level_is_refused() -> None:
    with pytest.raises(InputError, match="there are auto, docker, bubblewrap, user, none"):
        choose("docker-in-docker")


def test_a_python_that_others_cannot_reach_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "venv").mkdir(parents=True)
    closed.chmod(0o700)
    reason = unreachable([closed / "venv"])
    assert reason is not None and "closed to other users (mode 0700)" in reason


def test_a_submissions_code_folder_holds_nothing_of_the_judge(tmp_path: Path) -> None:
    code = code_folder(tmp_path / "code")
    modules = {str(path.relative_to(code).parent) for path in code.rglob("*.py")}
    assert modules == {"env", "harness", "harness/protocol"}
    assert [path.name for path in (code / "harness").glob("*.py")] == ["__init__.py"]
    assert list(code.rglob("*.pyc")) == []
    assert all(path.stat().st_mode & 0o004 for path in code.rglob("*"))


def test_the_reference_gets_the_whole_harness(tmp_path: Path) -> None:
    code = code_folder(tmp_path / "code", judge=True)
    assert (code / "harness" / "sandbox" / "supervisor.py").is_file()
