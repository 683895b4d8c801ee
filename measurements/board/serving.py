"""A real `validator serve`, and a worker with a stand-in for its judge, each a process of its own."""

import http.client
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from harness.board.stopping import Stop
from harness.board.store import Store, open_store
from harness.board.tables import (
    Base,
    Worker,
)
from harness.board.worker import Job, work
from measurements.board import ROOT
from measurements.board.example import HPARAMS_SHA256
from measurements.board.tables import cpu_seconds

START_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Server:
    """A `validator serve`."""

    pid: int
    port: int

    def get(self, path: str) -> "Took":
        """The time of one request, on a connection that is there already."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        connection.connect()
        wall, cpu = time.perf_counter(), cpu_seconds(self.pid)
        connection.request("GET", path)
        answer = connection.getresponse()
        size = len(answer.read())
        took = Took(time.perf_counter() - wall, cpu_seconds(self.pid) - cpu, size)
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"GET {path}: status {answer.status}")
        return took


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of one request, and the bytes of the answer."""

    wall: float
    cpu: float
    size: int

    def __str__(self) -> str:
        return f"{1000 * self.wall:.1f} ms ({1000 * self.cpu:.1f} CPU)"


@contextmanager
def serving(url: str, folder: Path) -> Iterator[Server]:
    log = folder / "server.log"
    command = [sys.executable, "-m", "harness.cli", "serve", "--store", url, "--data", str(folder)]
    with log.open("wb") as errors:
        child = subprocess.Popen([*command, "--port", "0"], stderr=errors, cwd=ROOT)
    try:
        end = time.monotonic() + START_SECONDS
        while "serving at" not in (said := log.read_text(encoding="utf-8")):
            if child.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start: {said}")
            time.sleep(0.05)
        server = Server(child.pid, int(said.split("serving at ")[1].split()[0].rpartition(":")[2]))
        server.get("/healthz")
        yield server
    finally:
        child.terminate()
        child.wait()
        if "Traceback" in (said := log.read_text(encoding="utf-8")):
            print(f"the server said:\n{said[-2_000:]}", file=sys.stderr)


def be_worker(url: str, judge: tuple[str, ...], lock: str) -> None:
    """Work as `validator worker` does, until SIGTERM."""
    stop = Stop(grace_seconds=60)
    signal.signal(signal.SIGTERM, lambda number, frame: stop.request())
    job = Job(ROOT / "hparams.json", HPARAMS_SHA256, judge=judge, lock=lock)
    work(open_store(url), job, stop, lambda line: None)


def count(store: Store, table: type[Base]) -> int:
    with store.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@contextmanager
def working(store: Store, url: str, judge: tuple[str, ...]) -> Iterator[BaseProcess]:
    """A worker in a process of its own, from its first word on."""
    # The tests may be timing on this machine; nothing here is timed against them.
    lock = f"\0trainjudge-measure-{os.getpid()}"
    process = multiprocessing.get_context("spawn").Process(
        target=be_worker, args=(url, judge, lock)
    )
    process.start()
    try:
        end = time.monotonic() + START_SECONDS
        while not count(store, Worker):
            if not process.is_alive() or time.monotonic() > end:
                raise SystemExit("the worker did not start")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.join()
