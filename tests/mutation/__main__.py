"""`python -m tests.mutation`: edit the judge in small ways and see whether the tests notice."""

import argparse
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import report
from .child import Edit, Job
from .equivalents import read_equivalents, set_aside
from .forks import Outcome, preload, prepare, run_jobs
from .mutants import Mutant, mutants
from .reach import measure, together
from .report import Result
from .table import Table, module_name, read_table

HERE = Path(__file__).resolve().parent
ENOUGH = 0.95
LIMIT_TIMES = 10.0  # a test process may take this many times what its tests take


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    root = options.root.resolve()
    settings = options.settings or HERE
    table = read_table(settings / "targets.toml", root)
    sources = _chosen(table, options.only)
    if not sources:
        print(f"nothing to edit in {', '.join(options.only)}", file=sys.stderr)
        return 2
    found = {s: mutants(s, (root / s).read_text(encoding="utf-8")) for s in sources}
    every = [mutant for source in sources for mutant in found[source]]
    counting, nothing, stale = set_aside(
        every, read_equivalents(settings / "equivalent.toml"), sources, _chosen(table, [])
    )
    if stale:
        for entry in stale:
            print(f"equivalent.toml: matches no edit: {entry}", file=sys.stderr)
        return 2
    if options.list:
        for mutant in counting:
            print(f"{mutant.name}  {mutant.function}\n  - {mutant.original}\n  + {mutant.mutated}")
        print(f"{len(counting)} edits, {len(nothing)} more that change nothing")
        return 0
    store = root / "build" / "mutants"
    # Ended from outside, it ends its test processes too, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    prepare(table.preload, store / "bytecode")
    results = [Result(mutant, report.NOTHING) for mutant in nothing]
    try:
        results.extend(_judge(table, counting, options.jobs, store))
    except (KeyboardInterrupt, SystemExit):
        print(f"\nended early, with these:\n{report.table(results)}", flush=True)
        raise
    places = {id(mutant): place for place, mutant in enumerate(every)}
    results.sort(key=lambda result: places[id(result.mutant)])
    name = "all" if not options.only else "-".join(Path(source).stem for source in sources)
    report.write(store / f"{name[:100]}.json", results)
    return _tell(results, options.show)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="sources to edit")
    parser.add_argument("--jobs", type=int, default=2, help="test processes at a time")
    parser.add_argument("--list", action="store_true", help="list the edits, run nothing")
    parser.add_argument("--show", type=int, metavar="N", help="survivors to show; default: all")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _chosen(table: Table, only: Sequence[str]) -> list[str]:
    """The sources of the targets, cut down to those asked for: files or folders."""
    wanted = [name.removeprefix("./").rstrip("/") for name in only]
    return [
        source
        for target in table.targets
        for source in target.sources
        if not wanted or any(source == w or source.startswith(f"{w}/") for w in wanted)
    ]


def _judge(table: Table, counting: list[Mutant], parallel: int, store: Path) -> Iterator[Result]:
    began = time.monotonic()
    print(f"{len(counting)} edits; which tests reach which line?", flush=True)
    sources = {mutant.source for mutant in counting}
    targets = [target for target in table.targets if sources & set(target.sources)]
    files = list(dict.fromkeys(file for target in targets for file in target.tests))
    reached = measure(table, files, parallel, store / "clean")
    for test, why in together(reached.values()).left_out.items():
        if why != "skipped":
            print(f"left out: {test}: {why}")
    preload(together(reached.values()).modules)
    jobs = []
    for target in targets:
        reach = together(reached[file] for file in target.tests)
        for mutant in (mutant for mutant in counting if mutant.source in target.sources):
            tests = reach.tests_for(mutant)
            if tests:
                seconds = LIMIT_TIMES * sum(reach.seconds[test] for test in tests)
                job = _job(table, mutant, tests, math.ceil(max(table.shortest_cpu, seconds)))
                jobs.append((mutant, job, max(table.shortest_wait, seconds)))
            else:
                yield Result(mutant, report.NOT_REACHED)
    print(f"{time.monotonic() - began:.0f} s; {len(jobs)} edits to run", flush=True)
    began, last, survived = time.monotonic(), 0.0, 0
    for done, (mutant, outcome) in enumerate(run_jobs(jobs, parallel), 1):
        result = _result(mutant, outcome)
        survived += result.survived
        if result.survived:  # at once: its test can be written while the others run
            print(report.survivor(result), flush=True)
        now = time.monotonic()
        if now - last > 5 or done == len(jobs):
            last = now
            left = (now - began) / done * (len(jobs) - done)
            print(
                f"{done}/{len(jobs)}, {survived} survive, {left:.0f} s left; {mutant.name}",
                flush=True,
            )
        yield result


def _job(table: Table, mutant: Mutant, tests: tuple[str, ...], cpu: int) -> Job:
    edit = Edit(module_name(mutant.source), str(table.root / mutant.source), mutant.code)
    files = tuple(dict.fromkeys(test.split("::")[0] for test in tests))
    return Job(table.root, files, tests, table.marks, edit, stop=True, cpu=cpu)


def _result(mutant: Mutant, outcome: Outcome) -> Result:
    if outcome.late:
        return Result(mutant, report.LATE, seconds=outcome.seconds)
    if outcome.report is None:
        return Result(mutant, report.DIED, said=outcome.output[-300:], seconds=outcome.seconds)
    status, ran = outcome.report["status"], outcome.report["ran"]
    if status == 0:
        return Result(mutant, report.SURVIVED, seconds=outcome.seconds)
    for test, how in ran.items():
        if how["outcome"] == "failed":
            return Result(mutant, report.FOUND, test, how["said"], outcome.seconds)
    for file, said in outcome.report["broken"].items():
        return Result(mutant, report.FOUND, f"import in {file}", said, outcome.seconds)
    if status == 5:
        raise RuntimeError(f"no test was collected for {mutant.name}:\n{outcome.output}")
    return Result(mutant, report.FOUND, "start of pytest", outcome.output[-300:], outcome.seconds)


def _tell(results: list[Result], show: int | None) -> int:
    survivors = [result for result in results if result.survived]
    for result in survivors[:show]:
        print(f"\n{report.survivor(result)}")
    print(f"\n{report.table(results)}\n")
    found = report.share(results)
    print(f"share found: {found:.1%} (at least {ENOUGH:.0%} asked)")
    return 0 if found >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
