"""A cluster of real raylets for a file of tests, and a store for each test."""

import os
from collections.abc import Iterator

import pytest

from tests.board.conftest import (  # noqa: F401 - fixtures
    database,
    migrated,
    raw,
    server,
    shared,
    store,
    url,
)
from tests.fleet.nodes import Nodes, cluster

# Whoever runs these tests may have a token of Ray's, and some of them import Ray before it is looked for.
os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("fleet")) as started:
        yield started


@pytest.fixture
def nodes(head: Nodes) -> Iterator[Nodes]:
    """The cluster, without nodes before and after."""
    yield head
    head.remove_all()
    for marks in head.folder.glob("marks-*"):
        marks.unlink()
