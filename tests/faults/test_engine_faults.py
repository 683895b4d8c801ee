"""The engine is taken away while a container runs: nobody is blamed for it but us, and nothing runs on.

The judge reaches the engine by a socket of this test's own, which closes at its moment and takes every
conversation with it. To the judge that is what the death of the engine looks like; a container outlives it,
as it does where an engine is told to restart without ending them.
"""

import os
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.phases import PhaseName
from harness.sandbox import Level, Sandbox
from harness.sandbox.docker.engine import connect, socket_address
from harness.sandbox.docker.leftovers import SandboxContainer, sandbox_containers
from tests.faults.staging import benchmark, judge, nothing_left
from tests.judging import explain
from tests.project import ROOT
from tests.sandbox_levels import Available

__all__ = ["benchmark"]  # a fixture

pytest_plugins = ("tests.judging", "tests.sandbox_levels")

WHAT: Final = "the engine is taken away"
#: The verdict by the phase in which it goes.
TABLE: Final = {
    PhaseName.LOAD: "error: internal",
    PhaseName.TIMED: "error: internal",
    PhaseName.OPEN: "error: internal",
}


class Doorway:
    """Forwards a socket to the engine's, until it is shut."""

    def __init__(self, path: Path, engine: str) -> None:
        self._engine = engine
        self._open: set[socket.socket] = set()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._let_in, daemon=True).start()

    def shut(self) -> None:
        """Nobody gets in any more, and whoever is inside is cut off."""
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _let_in(self) -> None:
        with suppress(OSError):
            while True:
                outside, _ = self._listening.accept()
                inside = socket.socket(socket.AF_UNIX)
                inside.connect(self._engine)
                self._open |= {outside, inside}
                threading.Thread(target=self._forward, args=(outside, inside), daemon=True).start()

    def _forward(self, outside: socket.socket, inside: socket.socket) -> None:
        other = {outside: inside, inside: outside}
        with suppress(OSError, ValueError):
            while True:
                for ready in select.select([outside, inside], [], [])[0]:
                    data = ready.recv(2**16)
                    if not data:
                        # Half of a conversation may end before the other.
                        other[ready].shutdown(socket.SHUT_WR)
                        return self._last(other[ready], ready)
                    other[ready].sendall(data)

    def _last(self, talking: socket.socket, listening: socket.socket) -> None:
        while data := talking.recv(2**16):
            listening.sendall(data)
        self._open -= {talking, listening}
        talking.close()
        listening.close()


@pytest.fixture
def doorway(
    available: Available, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Doorway]:
    if not available[Level.DOCKER].available:
        pytest.skip(available[Level.DOCKER].reason)
    engine = socket_address().removeprefix("unix://")
    path = tmp_path / "engine.sock"
    doorway = Doorway(path, engine)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    yield doorway
    doorway.shut()
    monkeypatch.undo()
    with closing(connect()) as client:
        for each in own_containers():
            client.remove_container(each.name, v=True, force=True)


def own_containers() -> list[SandboxContainer]:
    """Those of this process; other judges of the machine are not disturbed."""
    return [each for each in sandbox_containers() if f"-{os.getpid()}-" in each.name]


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.container
@pytest.mark.parametrize("phase", TABLE, ids=str)
def test_without_the_engine_nothing_runs_on_and_nobody_is_blamed(
    phase: PhaseName,
    doorway: Doorway,
    benchmark: LoadedHparams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = time.monotonic()
    with nothing_left():
        result = judge(benchmark, Sandbox(Level.DOCKER), phase, doorway.shut)
    assert f"{result.verdict}: {result.code}" == TABLE[phase], explain(result)
    assert time.monotonic() - began < 90
    monkeypatch.delenv("DOCKER_HOST")
    (left,) = own_containers()  # in the books of an engine that never heard of its end
    assert left.state == "exited"


def test_the_table_stands_in_the_manual() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    row = " | ".join((WHAT, *TABLE.values()))
    assert re.search(re.escape(f"| {row} |"), page), row
