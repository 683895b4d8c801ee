"""What a test process does with an edited module: serve it from memory, run pytest, report.

Runs in a fork of the parent and ends with it. The parent has imported no module of the project, so
the first import of the edited one, whoever asks for it, gets the edited source.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import coverage
import pytest

MEMORY_BYTES = 6 * 2**30  # an edit may allocate for ever: this much more than at the fork
FILE_BYTES = 4 * 2**30
HELD_BACK = {signal.SIGINT, signal.SIGTERM}  # while a fork is made
FIXTURE = "fixture "  # how coverage's context of a shared fixture begins


@dataclass(frozen=True)
class Edit:
    """The source that a module has for one test process."""

    module: str
    path: str
    code: str


@dataclass(frozen=True)
class Job:
    """One run of tests.

    Attributes:
        root: the project, also the working folder.
        files: test files.
        chosen: ids of the tests to run, in this order; None: all.
        marks: pytest's -m.
        edit: the module that is not as on disk.
        cover: files whose lines are recorded for every test.
        stop: whether the first failure ends the run.
        cpu: CPU seconds that the process may take; 0: as many as it likes.
        packages: whose modules are reported, where they were imported.
    """

    root: Path
    files: tuple[str, ...]
    chosen: tuple[str, ...] | None = None
    marks: str = ""
    edit: Edit | None = None
    cover: tuple[str, ...] = ()
    stop: bool = False
    cpu: int = 0
    packages: tuple[str, ...] = ()


@dataclass
class Ran:
    """One test that ran.

    Attributes:
        outcome: "passed", "failed" (setup and teardown too) or "skipped".
        said: the exception's message, of a failed one.
        cpu: seconds of this process and its children in the test itself.
        wall: seconds of setup, test and teardown.
        fixtures: names of the fixtures that it uses.
    """

    outcome: str = "passed"
    said: str = ""
    cpu: float = 0.0
    wall: float = 0.0
    fixtures: list[str] = field(default_factory=list)


class EditedModule(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads one module from memory. Nothing is written, no bytecode either."""

    def __init__(self, edit: Edit) -> None:
        self._edit = edit

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._edit.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._edit.path, loader=self)

    def get_source(self, fullname: str) -> str:
        return self._edit.code

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._edit.code, self._edit.path)

    def get_filename(self, fullname: str) -> str:
        return self._edit.path

    def is_package(self, fullname: str) -> bool:
        return self._edit.path.endswith("__init__.py")


class Watch:
    """A pytest plugin: picks and orders the tests, and takes down how they went."""

    def __init__(self, chosen: tuple[str, ...] | None, cover: coverage.Coverage | None) -> None:
        self.ran: dict[str, Ran] = {}
        self.broken: dict[str, str] = {}
        self._chosen = chosen
        self._cover = cover
        self._context = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._chosen is None:
            return
        order = {name: place for place, name in enumerate(self._chosen)}
        # An edit may change the names of a test's parameters: then all of that test.
        renamed = {name.split("[")[0] for name in order.keys() - {item.nodeid for item in items}}
        items[:] = sorted(
            (i for i in items if i.nodeid in order or i.nodeid.split("[")[0] in renamed),
            key=lambda item: order.get(item.nodeid, len(order)),
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken[report.nodeid] = _said(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        ran = self.ran[item.nodeid] = Ran(fixtures=list(getattr(item, "fixturenames", ())))
        self._switch(item.nodeid)
        began = time.monotonic()
        try:
            return (yield)
        finally:
            ran.wall = time.monotonic() - began
            self._switch("")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        before = sum(os.times()[:4])
        try:
            return (yield)
        finally:
            self.ran[item.nodeid].cpu = sum(os.times()[:4]) - before

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """What a shared fixture reaches is reached by all tests that use it, not by the first."""
        if fixturedef.scope == "function":
            return (yield)
        before = self._context
        self._switch(FIXTURE + fixturedef.argname)
        try:
            return (yield)
        finally:
            self._switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        ran = self.ran[report.nodeid]
        if report.failed:
            ran.outcome, ran.said = "failed", _said(report)
        elif report.skipped and ran.outcome == "passed":
            ran.outcome = "skipped"

    def _switch(self, context: str) -> None:
        self._context = context
        if self._cover is not None:
            self._cover.switch_context(context)


def _said(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The first line of an exception's message, or the last of whatever pytest has to say."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = report.longreprtext.strip().splitlines() if crash is None else [str(crash.message)]
    return lines[-1].splitlines()[0][:300] if lines and lines[-1] else ""


def work(job: Job, folder: Path) -> None:
    """Run a job in this process, a fresh fork, which never returns from here.

    What the tests say goes to `folder/output`, how it went to `folder/report.json`; what they write
    goes below `folder` too.
    """
    status = 1
    try:
        _settle(folder, job.cpu)
        os.chdir(job.root)
        report = _run(job, folder)
        partial = folder / "report.partial"
        partial.write_text(json.dumps(report), encoding="utf-8")
        partial.rename(folder / "report.json")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _settle(folder: Path, cpu: int) -> None:
    """A session of its own, its output in a file, its temporary files in `folder`, and limits."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        path = os.devnull if descriptor == 0 else str(folder / "output")
        opened = os.open(path, flags | (os.O_CREAT | os.O_APPEND if descriptor else 0), 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    if cpu:
        _limit(resource.RLIMIT_CPU, cpu)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, hard))


def _run(job: Job, folder: Path) -> dict[str, Any]:
    if job.edit is not None:
        if job.edit.module in sys.modules:
            raise RuntimeError(f"{job.edit.module} is imported already")
        sys.meta_path.insert(0, EditedModule(job.edit))
    cover = None
    if job.cover:
        cover = coverage.Coverage(
            data_file=None, config_file=False, include=[str(job.root / path) for path in job.cover]
        )
        cover.set_option("run:core", "ctrace")  # the newer ways of measuring know no contexts
        cover.start()
    watch = Watch(job.chosen, cover)
    status = pytest.main(
        [
            *("-q", "-p", "no:cacheprovider", "--tb=line", "--no-header", "-o", "addopts="),
            *("-p", "no:anyio"),  # comes with a dependency, takes a tenth of a second, unused
            *("--rootdir", str(job.root), "--basetemp", str(folder / "pytest")),
            *(("-m", job.marks) if job.marks else ()),
            *(("-x",) if job.stop else ("--continue-on-collection-errors",)),
            *job.files,
        ],
        plugins=[watch],
    )
    lines: dict[str, dict[str, list[str]]] = {}
    if cover is not None:
        cover.stop()
        for path in job.cover:
            found = cover.get_data().contexts_by_lineno(str(job.root / path))
            lines[path] = {str(line): sorted(contexts) for line, contexts in found.items()}
    return {
        "status": int(status),
        "ran": {name: asdict(ran) for name, ran in watch.ran.items()},
        "broken": watch.broken,
        "lines": lines,
        "modules": sorted(name for name in sys.modules if name.split(".")[0] in job.packages),
    }
