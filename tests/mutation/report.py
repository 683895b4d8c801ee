"""Results in words: a table of the modules, the survivors, and a file with all."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .mutants import Mutant

FOUND = "found"
LATE = "found: time limit"
DIED = "found: the process died"
SURVIVED = "survived"
NOT_REACHED = "not reached"
NOTHING = "changes nothing"


@dataclass(frozen=True)
class Result:
    """What became of a mutant: one of the verdicts above, by which test, and what it said."""

    mutant: Mutant
    verdict: str
    by: str = ""
    said: str = ""
    seconds: float = 0.0

    @property
    def survived(self) -> bool:
        return self.verdict in (SURVIVED, NOT_REACHED)

    @property
    def counts(self) -> bool:
        return self.verdict != NOTHING


def share(results: Iterable[Result]) -> float:
    """Found among those that count; 1 where there are none."""
    counting = [result for result in results if result.counts]
    return sum(not result.survived for result in counting) / len(counting) if counting else 1.0


def table(results: Sequence[Result]) -> str:
    sources = list(dict.fromkeys(result.mutant.source for result in results))
    width = max([len(source) for source in sources] + [5])
    lines = [f"{'':{width}}  edits  found  survived  nothing  share"]
    for source in [*sources, "all"]:
        chosen = [r for r in results if source in (r.mutant.source, "all")]
        counting = [r for r in chosen if r.counts]
        survived = sum(r.survived for r in counting)
        lines.append(
            f"{source:{width}}  {len(counting):5}  {len(counting) - survived:5}  {survived:8}  "
            f"{len(chosen) - len(counting):7}  {share(chosen):6.1%}"
        )
    return "\n".join(lines)


def survivor(result: Result) -> str:
    mutant = result.mutant
    return "\n".join(
        (
            f"{mutant.source}:{mutant.line} {mutant.function or '(module)'}  {mutant.operator}"
            f"{'  (no fast test reaches it)' if result.verdict == NOT_REACHED else ''}",
            f"  - {mutant.original}",
            f"  + {mutant.mutated}",
        )
    )


def write(path: Path, results: Iterable[Result]) -> None:
    """Every mutant and what became of it, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [
        {
            "file": r.mutant.source,
            "line": r.mutant.line,
            "function": r.mutant.function,
            "operator": r.mutant.operator,
            "original": r.mutant.original,
            "mutated": r.mutant.mutated,
            "verdict": r.verdict,
            "by": r.by,
            "said": r.said,
            "seconds": round(r.seconds, 2),
        }
        for r in results
    ]
    path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
