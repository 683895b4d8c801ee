"""Fixtures: the levels of isolation that work here, and a work folder for a sandbox.

Test modules name this file in `pytest_plugins`.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox import Availability, Level, probe

Available = dict[Level, Availability]
# With it set, as in .ci/run, a machine without engine or image fails the tests.
REQUIRED = "TRAINJUDGE_REQUIRE_CONTAINER"
# Names the judge's home, with the snapshot in it, for a suite that is run inside a test.
HOME = "TRAINJUDGE_TEST_HOME"


@pytest.fixture(scope="session")
def available() -> Available:
    """What each level's trial said; found out once. In .ci/run an engine has to be there."""
    found = {availability.level: availability for availability in probe()}
    if os.environ.get(REQUIRED):
        assert found[Level.DOCKER].available, found[Level.DOCKER].reason
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A work folder of one test."""
    with work_folder() as path:
        yield path


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder that other users may pass through (pytest's own may not)."""
    path = Path(tempfile.mkdtemp(prefix="trainjudge-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def public_copy(home: Path, folder: Path, owner: int | None = None) -> Path:
    """A home of the judge, copied to `folder`, for a judge that is another user or sandboxes that are."""
    copy = folder / "home"
    shutil.copytree(home, copy)
    copy.chmod(0o755)
    if owner is not None:
        for path in (copy, *copy.rglob("*")):
            os.chown(path, owner, owner)
    return copy
