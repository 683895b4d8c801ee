"""Fixtures for level `docker`: the engine of this machine, and images that hold nothing but labels."""

import contextlib
import io
import tarfile
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.image_labels import image_facts
from harness.benchmark.snapshot import Snapshot
from harness.errors import InputError
from harness.sandbox import Level
from harness.sandbox.docker.engine import connect
from tests.sandbox_levels import Available


@pytest.fixture
def docker_level(available: Available) -> Level:
    if not available[Level.DOCKER].available:
        pytest.skip(f"level docker: {available[Level.DOCKER].reason}")
    return Level.DOCKER


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """A client of this machine's engine."""
    try:
        client = connect()
    except InputError as error:
        pytest.skip(f"level docker: {error.message}")
    yield client
    client.close()


@pytest.fixture
def make_image(engine: Any) -> Iterator[Any]:
    """Makes an image that holds nothing but labels and other configuration."""
    names = []

    def make(*changes: str) -> str:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("empty"))
        name = f"trainjudge-test-{uuid.uuid4().hex}"
        names.append(name)
        engine.import_image_from_data(archive.getvalue(), name, changes=list(changes))
        return name

    yield make
    for name in names:
        with contextlib.suppress(Exception):
            engine.remove_image(name, force=True)


def labels(loaded: LoadedHparams, snapshot: Snapshot, **changed: str) -> list[str]:
    values = image_facts(loaded, snapshot.manifest).labels() | changed
    return [f'LABEL {name}="{value}"' for name, value in values.items()]
