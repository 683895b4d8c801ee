"""Nodes that judge for real, and commands of a fleet in processes of their own."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.board.store import Store
from harness.board.submit import Handed, submit
from harness.fleet.node import HeldBenchmark
from tests.fleet.nodes import Nodes
from tests.project import ROOT

HERE = Path(__file__).parent
#: `validator run`, and what may happen to the machine meanwhile.
JUDGE = str(HERE / "judging.py")
DISPATCHER = str(HERE / "dispatching.py")


@contextmanager
def started(*words: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Python with these arguments, in a process of its own; killed at the end if it lives still."""
    with log.open("ab") as written:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=written, stderr=written, cwd=ROOT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def command(*words: str, log: Path) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """The same with `validator`."""
    return started("-m", "harness.cli", *words, log=log)


def really_judges(
    nodes: Nodes,
    name: str,
    loaded: LoadedHparams,
    snapshot: Snapshot,
    judge: Sequence[str] = (),
    level: str = "none",
    data: Path | None = None,
) -> None:
    """Add a node without devices.

    Args:
        nodes: where it is added.
        name: of its host.
        loaded, snapshot: what it judges.
        judge: the command; by default this module's.
        level: of isolation.
        data: its data folder; None: that of all of them.
    """
    held = HeldBenchmark(hparams=loaded.path, snapshot=snapshot.directory)
    changes: dict[str, Any] = {
        "benchmarks": {loaded.sha256: held}, "level": level, "gpus": 0, "gpu": "",
        "judge": tuple(judge) or (sys.executable, JUDGE, str(nodes.folder)),
        "options": ("--sandbox", level, "--runs", "1"), "data": data,
    }  # fmt: skip
    nodes.add(name, loaded.sha256, **changes)


def hand_in(store: Store, file: Path, season: str, number: int = 0) -> int:
    """Submit a file; each number makes another one of it."""
    source = file.read_bytes() + f"\n# {number}\n".encode()
    return submit(store, Handed("ada", file.name, source, season=season))
