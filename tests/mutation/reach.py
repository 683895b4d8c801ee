"""Which tests reach which line: a clean run with coverage, and one without for how long tests take."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .child import FIXTURE, Job
from .forks import run_jobs
from .mutants import Mutant
from .table import Table

CLEAN_SECONDS = 1500.0
Report = Mapping[str, Any]


@dataclass
class Reach:
    """What clean runs of some test files say.

    Attributes:
        seconds: wall time of every test that counts.
        lines: by source, for every line the tests that run it; "" is among them where it runs
            before any test.
        left_out: tests that do not count, and why.
        modules: third-party modules that were imported.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def tests_for(self, mutant: Mutant) -> tuple[str, ...]:
        """The tests that may notice an edit, the fastest first; none where no test reaches it."""
        lines = self.lines.get(mutant.source, {})
        first, last = mutant.statement
        found = {name for line in range(first, last + 1) for name in lines.get(line, ())}
        if mutant.at_import or "" in found:
            inside = {name for names in lines.values() for name in names}
            return tuple(sorted(self.seconds, key=lambda n: (n not in inside, self.seconds[n], n)))
        return tuple(sorted(found, key=lambda name: (self.seconds[name], name)))


def together(parts: Iterable[Reach]) -> Reach:
    """The reach of several test files."""
    whole = Reach()
    for part in parts:
        whole.seconds.update(part.seconds)
        whole.left_out.update(part.left_out)
        whole.modules = sorted({*whole.modules, *part.modules})
        for source, found in part.lines.items():
            lines = whole.lines.setdefault(source, {})
            for line, names in found.items():
                lines[line] = sorted({*lines.get(line, ()), *names})
    return whole


def measure(table: Table, files: Sequence[str], parallel: int, store: Path) -> dict[str, Reach]:
    """The reach of every test file, measured or, where nothing has changed since, from `store`."""
    known: dict[str, Reach] = {}
    sources = tuple(source for target in table.targets for source in target.sources)
    packages = tuple(dict.fromkeys(name.split(".")[0] for name in table.preload))
    places = {file: store / f"{_fingerprint(table, sources, file)}.json" for file in files}
    jobs = []
    for file, place in places.items():
        with suppress(FileNotFoundError):
            known[file] = _load(json.loads(place.read_text(encoding="utf-8")))
            continue
        for cover in (sources, ()):
            job = Job(table.root, (file,), marks=table.marks, cover=cover, packages=packages)
            jobs.append(((file, bool(cover)), job, CLEAN_SECONDS))
    reports: dict[tuple[str, bool], Report] = {}
    for (file, covered), outcome in run_jobs(jobs, parallel):
        if outcome.report is None:
            raise RuntimeError(f"the clean run of {file} did not end well:\n{outcome.output}")
        reports[file, covered] = outcome.report
        if len({(file, True), (file, False)} & set(reports)) == 2:
            known[file] = _put_together(table, reports[file, True], reports[file, False])
            print(f"{len(known[file].seconds)} tests in {file}", flush=True)
            _keep(places[file], known[file])
    return {file: known[file] for file in files}


def _load(raw: Report) -> Reach:
    lines = {
        source: {int(line): names for line, names in found.items()}
        for source, found in raw["lines"].items()
    }
    return Reach(raw["seconds"], lines, raw["left_out"], raw["modules"])


def _keep(place: Path, reach: Reach) -> None:
    """Store a reach in the place of what was true of this test file before."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.glob(f"{place.stem.rpartition('-')[0]}-*.json"):
        old.unlink(missing_ok=True)
    partial = place.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(vars(reach)), encoding="utf-8")
    partial.rename(place)


def _put_together(table: Table, covered: Report, plain: Report) -> Reach:
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {**covered["broken"], **plain["broken"]}
    for name, ran in plain["ran"].items():
        with_coverage = covered["ran"].get(name, {"outcome": "not run"})
        if ran["outcome"] != "passed" or with_coverage["outcome"] != "passed":
            left_out[name] = ran["said"] or with_coverage.get("said", "") or ran["outcome"]
        elif ran["cpu"] > table.slowest:
            left_out[name] = f"takes {ran['cpu']:.1f} s"
        else:
            seconds[name] = ran["wall"]
    users: dict[str, list[str]] = {}
    for name in seconds:
        for fixture in plain["ran"][name]["fixtures"]:
            users.setdefault(FIXTURE + fixture, []).append(name)
    lines: dict[str, dict[int, list[str]]] = {}
    for source, found in covered["lines"].items():
        lines[source] = {}
        for line, contexts in found.items():
            names = {name for each in contexts for name in users.get(each, [each])}
            lines[source][int(line)] = sorted(n for n in names if n in seconds or not n)
    return Reach(seconds, lines, left_out, plain["modules"])


def _fingerprint(table: Table, sources: Sequence[str], file: str) -> str:
    """Of all that a clean run depends on: sources, the tests, and what they import besides."""
    digest = hashlib.sha256(repr((table.marks, table.slowest, table.preload)).encode())
    helpers = [path for path in table.context if not Path(path).name.startswith("test_")]
    for path in sorted({*sources, file, *helpers}):
        digest.update(path.encode() + b"\0" + (table.root / path).read_bytes() + b"\0")
    return f"{Path(file).stem}-{digest.hexdigest()[:16]}"
