"""Fixtures: the levels of isolation that work here, and a work folder for a sandbox.

Test modules name this file in `pytest_plugins`.
"""

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


@pytest.fixture(scope="session")
def available() -> Available:
    """What each level's trial said; found out once. In .ci/run an engine has to be there."""
    found = {availability.level: availability for availability in probe()}
    if os.environ.get(REQUIRED):
        assert found[Level.DOCKER].available, found[Level.DOCKER].reason
    return found


@pytest.fixture(params=list(Level), ids=str)
def level(request: pytest.FixtureRequest, available: Available) -> Level:
    """Every level that works here."""
    return _require(request.param, available)


@pytest.fixture(params=[Level.DOCKER, Level.BUBBLEWRAP, Level.USER], ids=str)
def isolated(request: pytest.FixtureRequest, available: Available) -> Level:
    """Every level that works here and protects the judge."""
    return _require(request.param, available)


@pytest.fixture
def bubblewrap(available: Available) -> Level:
    """That level, where it works."""
    return _require(Level.BUBBLEWRAP, available)


def _require(level: Level, available: Available) -> Level:
    if not available[level].available:
        pytest.skip(f"level {level}: {available[level].reason}")
    return level


@pytest.fixture
def folder() -> Iterator[Path]:
    """A work folder that other users may pass through (pytest's own may not)."""
    path = Path(tempfile.mkdtemp(prefix="trainjudge-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)
