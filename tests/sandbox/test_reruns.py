"""The conformance suite again where it could not be run as it is, in a mount namespace.

Level `user` needs a Python that every user can reach, and bubblewrap behaves differently for root and
for an ordinary user. In the namespace both are so. `.ci/run` runs the quick tests of the
suite, and `make test-all` leaves nothing out.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.benchmark.snapshot import Snapshot
from harness.sandbox import Level
from harness.sandbox.user import unreachable
from tests.project import ROOT
from tests.sandbox_levels import HOME, REQUIRED, Available, public_copy, work_folder

pytest_plugins = ("tests.sandbox_levels",)
USER = 1234
NOT_ROOT = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
QUICK = ["-m", "not slow"]
EVERYTHING: list[str] = []

# For a whole suite, on a machine that is busy with others.
SECONDS = 600
pytestmark = pytest.mark.timeout(SECONDS + 100)

REACHABLE = """
set -e
hold=$(mktemp -d)
mount --bind "$BASE" "$hold"
for folder in $CLOSED; do mount -t tmpfs -o mode=755 none "$folder"; done
mkdir -p "$BASE"
mount --move "$hold" "$BASE"
rmdir "$hold"
exec "$@"
"""


def rerun(level: Level, selection: list[str], wrapper: list[str], home: Path) -> None:
    """pytest in a mount namespace in which the folders that close Python off are replaced."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("making a mount namespace needs root, unshare and setpriv")
    base = Path(sys.base_prefix).resolve()
    closed = [f for f in reversed(base.parents) if unreachable([f / "x"])][:1]
    if (reason := unreachable([ROOT / "tests", Path(sys.prefix)])) is not None:
        pytest.skip(f"another user cannot read the tests: {reason}")
    environment = {**os.environ, "BASE": str(base), "HOME": "/tmp"}
    environment |= {"CLOSED": " ".join(map(str, closed)), "PYTHONDONTWRITEBYTECODE": "1"}
    environment[HOME] = str(home)
    environment.pop(REQUIRED, None)  # these users have no engine
    inner = ["bash", "-c", REACHABLE, "bash", *wrapper, sys.executable, "-m", "pytest"]
    suite = ["-p", "no:cacheprovider", "tests/conformance", "--level", str(level)]
    result = subprocess.run(
        ["unshare", "--mount", *inner, *suite, *selection],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    output = result.stdout + result.stderr
    if "unshare failed" in output:
        pytest.skip(f"no mount namespace here: {output.strip()}")
    assert result.returncode == 0, output
    assert " passed" in output, output
    if selection is QUICK:  # the longest tests skip what is a known gap of a level
        assert " skipped" not in output.splitlines()[-1], output


@pytest.fixture
def user_untested(available: Available) -> None:
    if available[Level.USER].available:
        pytest.skip("level user works here and was tested as it is")


@pytest.fixture
def home(judge_home: Path, snapshot: Snapshot) -> Iterator[Path]:
    """With the snapshot that this session has made already."""
    with work_folder() as folder:
        yield public_copy(judge_home, folder)


@pytest.fixture
def users_home(judge_home: Path, snapshot: Snapshot) -> Iterator[Path]:
    """The same for a judge that is an ordinary user."""
    with work_folder() as folder:
        yield public_copy(judge_home, folder, USER)


@pytest.mark.slow
@pytest.mark.rerun
@pytest.mark.usefixtures("user_untested")
def test_level_user_holds_too(home: Path) -> None:
    rerun(Level.USER, QUICK, [], home)


@pytest.mark.slow
@pytest.mark.rerun
def test_bubblewrap_holds_for_a_judge_that_is_not_root(users_home: Path) -> None:
    rerun(Level.BUBBLEWRAP, QUICK, NOT_ROOT, users_home)


@pytest.mark.slow
@pytest.mark.usefixtures("user_untested")
def test_level_user_passes_every_test(home: Path) -> None:
    rerun(Level.USER, EVERYTHING, [], home)


@pytest.mark.slow
def test_bubblewrap_passes_every_test_for_a_judge_that_is_not_root(users_home: Path) -> None:
    rerun(Level.BUBBLEWRAP, EVERYTHING, NOT_ROOT, users_home)
