"""The list of edits that change nothing, and how an entry finds its edit."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .mutants import Mutant


@dataclass(frozen=True)
class Equivalent:
    """One entry of `equivalent.toml`. `file` is the end of a source's path."""

    file: str
    function: str
    original: str
    mutated: str
    reason: str

    def matches(self, mutant: Mutant) -> bool:
        return (
            f"/{mutant.source}".endswith(f"/{self.file}")
            and mutant.function == self.function
            and mutant.original == self.original
            and mutant.mutated == self.mutated
        )


def read_equivalents(path: Path) -> list[Equivalent]:
    """Raises ValueError for an entry without a reason."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("edit", [])
    found = [Equivalent(**entry) for entry in entries]
    for entry in found:
        if len(entry.reason.split()) < 3:
            raise ValueError(f"no reason given: {entry}")
    return found


def set_aside(
    mutants: Iterable[Mutant],
    entries: Iterable[Equivalent],
    sources: Iterable[str],
    others: Iterable[str],
) -> tuple[list[Mutant], list[Mutant], list[Equivalent]]:
    """Mutants that count, those that change nothing, and entries that match none.

    `sources` are the files that the mutants are of; entries for `others` are not asked about.
    """
    entries = list(entries)
    used: set[Equivalent] = set()
    counting: list[Mutant] = []
    nothing: list[Mutant] = []
    for mutant in mutants:
        matching = [entry for entry in entries if entry.matches(mutant)]
        used.update(matching)
        (nothing if matching else counting).append(mutant)
    others = set(others) - set(sources)
    stale = [
        entry
        for entry in entries
        if entry not in used and not any(f"/{o}".endswith(f"/{entry.file}") for o in others)
    ]
    return counting, nothing, stale
