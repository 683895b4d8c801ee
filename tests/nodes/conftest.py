"""Two machines for a file of tests, on a benchmark with short rows and a peak that need not be measured."""

from collections.abc import Iterator

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.nodes.key import make_key
from tests.nodes.machines import Machines, require_namespaces, two_machines


@pytest.fixture(scope="module")
def machines(quick: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    require_namespaces()
    folder = tmp_path_factory.mktemp("machines")
    key = folder / "agents.pem"
    make_key(key)
    with two_machines(folder, key, quick.path) as started:
        yield started
