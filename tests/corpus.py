"""The corpus: train files that attack the judge, and honest ones that others' scanners reject.

Each lies in `tests/attacks/KIND/` or `tests/honest/`. The first line of its docstring says what has to come
of it, as in tests/submissions; further lines of an attack:

    Tries: what it does, in its strongest version.
    Would save: what it would be worth if it worked.
    Needs: a sandbox (only where it does: it ends processes, fills a disk, looks for what is hidden).
    Gap at user: why it gains something there (only if docs/sandbox.md says so of that level).

An attack that gains nothing, such as one that patches a clock and does the work all the same, expects
`accepted ok`.
"""

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from harness.errors import Verdict
from harness.result import EvaluationResult
from harness.sandbox import Level
from tests.judging import Expected, expected_of
from tests.project import ROOT

ATTACKS: Final = ROOT / "tests" / "attacks"
HONEST: Final = ROOT / "tests" / "honest"
#: "K/N": the files whose names fall into part K of N, counted from 0.
PART: Final = os.environ.get("CORPUS_PART", "0/1")
#: A level of isolation for all of them; without it ranks are forked where no sandbox is needed.
LEVEL: Final = os.environ.get("CORPUS_LEVEL", "")
#: The property of a test's report that holds its line of the table.
CORPUS_ROW: Final = "row of the corpus"


@dataclass(frozen=True)
class Member:
    """A file of the corpus. `tries`, `saves`: empty for an honest one. `gaps`: levels that let it gain."""

    file: Path
    kind: str
    expected: Expected
    tries: str
    saves: str
    needs_sandbox: bool
    gaps: frozenset[Level]

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.file.stem}"


def deserved(member: Member, result: EvaluationResult) -> bool:
    """Whether it got a verdict and a code that it expects."""
    return result.verdict is member.expected.verdict and result.code in member.expected.codes


def row(member: Member, result: EvaluationResult) -> tuple[str, ...]:
    """A line of the table: file, what it tries, verdict, which check saw it, what it would have saved."""
    verdict = str(result.verdict)
    if not deserved(member, result):
        verdict = f"[red]{verdict}[/red], not deserved"
    return member.name, member.tries, verdict, seen_by(result), member.saves


def members() -> list[Member]:
    """The whole corpus."""
    files = [*sorted(ATTACKS.glob("*/*.py")), *sorted(HONEST.glob("*.py"))]
    return [_member(file) for file in files]


def part_of(every: Sequence[Member], part: str = PART) -> list[Member]:
    """Those that are in a part; which one a file is in depends on its name alone."""
    number, _, parts = part.partition("/")
    return [each for each in every if zlib.crc32(each.name.encode()) % int(parts) == int(number)]


def _member(file: Path) -> Member:
    text = file.read_text(encoding="utf-8")
    attack = file.parent.parent == ATTACKS
    return Member(
        file=file,
        kind=file.parent.name,
        expected=expected_of(file),
        tries=_line(text, "Tries") if attack else "",
        saves=_line(text, "Would save") if attack else "",
        needs_sandbox=re.search(r"^Needs: a sandbox", text, re.M) is not None,
        gaps=frozenset(map(Level, re.findall(r"^Gap at (\w+): ", text, re.M))),
    )


def _line(text: str, what: str) -> str:
    """A labelled paragraph of the docstring, on one line."""
    docstring = text.split('"""')[1]
    found = re.search(rf"^{what}: (.+?)(?=^\w[\w ]*: |\Z)", docstring, re.M | re.S)
    assert found, f"the docstring does not say what it {what.lower()}"
    return " ".join(found[1].split())


def show(rows: Sequence[tuple[str, ...]], console: Console) -> None:
    """What `row` says of each."""
    table = Table(title=f"{len(rows)} files of the corpus", title_justify="left")
    for column in ("file", "tries", "verdict", "seen by", "would save"):
        table.add_column(column, overflow="fold")
    for cells in sorted(rows):
        table.add_row(*cells)
    console.print(table)


def seen_by(result: EvaluationResult) -> str:
    """The check that rejects, else the code."""
    if result.verdict is Verdict.ACCEPTED:
        return ""
    checks = [finding.check for run in result.runs for finding in run.findings]
    return f"{result.code} ({checks[0]})" if checks else str(result.code)
