"""A fork server: many test processes, each a fork of this one, which has imported what is slow.

Each job gets a folder and a session of its own. When it ends, or its time is up, everything that is
left of its session is killed and its folder is removed.
"""

import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, Phase, settings

from . import child

Key = TypeVar("Key")


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        report: what it reported; None where it died or its time was up.
        late: whether its time was up, on the clock or of the CPU.
        seconds: wall time.
        output: the last words of pytest.
    """

    report: dict[str, Any] | None
    late: bool
    seconds: float
    output: str


@dataclass(frozen=True)
class _Running(Generic[Key]):
    key: Key
    pid: int
    folder: Path
    began: float
    limit: float


def prepare(modules: Iterable[str], bytecode: Path) -> None:
    """Import what is slow, and settle what tests may not differ in from run to run.

    Args:
        modules: to be imported, third-party ones only.
        bytecode: folder for that of the project and its tests.
    """
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    preload(modules)
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(bytecode)
    # The same examples each time; no shrinking, because one failure is all that is asked.
    settings.register_profile(
        "mutation",
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")


def preload(modules: Iterable[str]) -> None:
    """Import modules that every fork shall have."""
    for module in modules:
        with suppress(ImportError):  # then the tests that need it will say so
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # no collection in a fork touches, and so copies, what all share


def run_jobs(
    jobs: Iterable[tuple[Key, child.Job, float]], parallel: int
) -> Iterator[tuple[Key, Outcome]]:
    """Run jobs, `parallel` at a time, each within its seconds; yields them as they end."""
    waiting = iter(jobs)
    base = Path(tempfile.mkdtemp(prefix="mutation-"))
    running: dict[int, _Running[Key]] = {}
    selector = selectors.DefaultSelector()
    try:
        more = True
        while more or running:
            while more and len(running) < parallel:
                job = next(waiting, None)
                if job is None:
                    more = False
                    break
                with _undisturbed():
                    started = _start(base, *job)
                    descriptor = os.pidfd_open(started.pid)
                    running[descriptor] = started
                    selector.register(descriptor, selectors.EVENT_READ)
            if not running:
                break
            soonest = min(each.began + each.limit for each in running.values())
            ready = selector.select(max(0.0, soonest - time.monotonic()))
            ended = {item.fd for item, _ in ready}
            now = time.monotonic()
            for descriptor, each in list(running.items()):
                late = descriptor not in ended and now >= each.began + each.limit
                if descriptor in ended or late:
                    selector.unregister(descriptor)
                    os.close(descriptor)
                    del running[descriptor]
                    yield each.key, _end(each, late)
    finally:
        for each in running.values():
            _end(each, late=True)
        selector.close()
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back what asks us to end: Python drops an exception that is raised while it forks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, child.HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, child.HELD_BACK)


def _start(base: Path, key: Key, job: child.Job, limit: float) -> _Running[Key]:
    folder = Path(tempfile.mkdtemp(dir=base))
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        child.work(job, folder)
    return _Running(key, pid, folder, time.monotonic(), limit)


def _end(running: _Running[Any], late: bool) -> Outcome:
    """Kill what is left of a session, and take down how the job went."""
    for kill, who in ((os.killpg, running.pid), (os.kill, running.pid)):
        with suppress(ProcessLookupError, PermissionError):
            kill(who, signal.SIGKILL)
    _, status = os.waitpid(running.pid, 0)
    late = late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    report = None
    with suppress(OSError, ValueError):
        report = json.loads((running.folder / "report.json").read_text(encoding="utf-8"))
    output = ""
    with suppress(OSError):
        output = (running.folder / "output").read_text(encoding="utf-8", errors="replace")[-4000:]
    shutil.rmtree(running.folder, ignore_errors=True)
    return Outcome(None if late else report, late, time.monotonic() - running.began, output)
