"""What is edited and what has to notice: `targets.toml`, read and expanded."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """Sources and the test files that have to notice an edit in one of them, from the root."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`targets.toml` with its globs expanded.

    Attributes:
        root: the project that the paths start from.
        preload: modules that every test process has from the start.
        marks: pytest's -m for the fast tests.
        slowest: CPU seconds above which a test is left out.
        shortest_cpu: the least CPU seconds that a test process is given, against endless loops.
        shortest_wait: the least seconds of the clock, against waits without end.
        context: files that the tests depend on besides.
        targets: each source is in one of them.
    """

    root: Path
    preload: tuple[str, ...]
    marks: str
    slowest: float
    shortest_cpu: float
    shortest_wait: float
    context: tuple[str, ...]
    targets: tuple[Target, ...]


def read_table(path: Path, root: Path) -> Table:
    """Raises ValueError where a target names sources but no test of it exists."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    taken: set[str] = set()
    targets = []
    for entry in raw["target"]:
        sources = [s for s in _expand(root, entry["sources"]) if s not in taken]
        tests = _expand(root, entry["tests"])
        if sources and not tests:
            raise ValueError(f"no test file for {', '.join(sources)}: {path.name}")
        taken.update(sources)
        if sources:
            targets.append(Target(tuple(sources), tuple(tests)))
    return Table(
        root=root,
        preload=tuple(raw.get("preload", ())),
        marks=raw.get("marks", ""),
        slowest=raw.get("slowest", 2.0),
        shortest_cpu=raw.get("shortest_cpu", 8.0),
        shortest_wait=raw.get("shortest_wait", 30.0),
        context=tuple(_expand(root, raw.get("context", ()))),
        targets=tuple(targets),
    )


def _expand(root: Path, globs: Iterable[str]) -> list[str]:
    """In the order of the globs, each file once."""
    found = [
        path.relative_to(root).as_posix() for glob in globs for path in sorted(root.glob(glob))
    ]
    return list(dict.fromkeys(found))


def module_name(source: str) -> str:
    """`harness/opening/plan.py` is imported as `harness.opening.plan`."""
    return source.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
