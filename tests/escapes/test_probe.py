"""The table of `validator doctor --probe` itself: what it sees, leaves, passes over and shows.

It has to show what level `none` lets through, and `docs/security.md` has to name the gaps that it passes
over. What each level holds is tested in conformance/test_escapes.py.
"""

import io
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import app
from harness.escapes.decoys import processes_with
from harness.escapes.inside import ENDING, TOUR
from harness.escapes.inside.stage import REPORT
from harness.escapes.probe import probe_level, read_report
from harness.escapes.report import (
    GAPS_WITHOUT_SIGHT,
    KNOWN_GAPS,
    TITLES,
    Cell,
    Outcome,
    ProbeReport,
    Row,
    escaped,
    render,
)
from harness.escapes.stage import TEMPORARY_FOLDERS
from harness.sandbox import Availability, Level, Sandbox
from tests.project import ROOT

# Stands for what is otherwise random, so that what is left can be found.
MARK = secrets.token_hex(16)


@pytest.fixture(scope="module")
def unprotected() -> Iterator[tuple[dict[str, Cell], list[Path]]]:
    """Level `none`, taken for one that protects: the table, and the files that are left."""
    place = Path(tempfile.mkdtemp(prefix="trainjudge-test-"))
    place.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(place))
        patch.setattr("secrets.token_hex", lambda size: MARK[: 2 * size])
        cells = probe_level(Sandbox(Level.NONE), Level.BUBBLEWRAP)
    assert processes_with(place.name) == []
    yield cells, list(place.iterdir())
    shutil.rmtree(place)


def test_the_probe_sees_what_gets_through(
    unprotected: tuple[dict[str, Cell], list[Path]],
) -> None:
    """A table that could not fail would prove nothing."""
    cells, _ = unprotected
    for name in (
        "outside", "services", "neighbour_socket", "reference", "challenge", "neighbour_files",
        "environment", "processes", "write_outside", "change_inputs", "shared_folders", "signals",
        "machine_folders", "shared_memory", "outlive",
    ):  # fmt: skip
        assert cells[name].outcome is Outcome.ESCAPED, (name, cells[name])
        assert cells[name].seen, f"{name}: not seen from outside"


def test_the_probe_leaves_nothing_of_what_got_through(
    unprotected: tuple[dict[str, Cell], list[Path]],
) -> None:
    _, left = unprotected
    assert left == []
    assert [path for place in TEMPORARY_FOLDERS for path in place.glob(f"*{MARK[:16]}*")] == []


def test_only_known_gaps_are_passed_over() -> None:
    gap = escaped(Level.USER, "shared_memory", ("/dev/shm is filled",), seen=True)
    assert gap.outcome is Outcome.GAP
    more = escaped(Level.USER, "shared_memory", ("/dev/shm is filled", "another way"), seen=True)
    assert (more.outcome, more.detail) == (Outcome.ESCAPED, "another way")
    for level in Level:
        assert escaped(level, "reference", ("a file of private/",), seen=True).outcome is (
            Outcome.ESCAPED
        )


@pytest.mark.parametrize("level", list(Level))
def test_an_escape_fails_the_doctor_unless_the_level_promises_nothing(level: Level) -> None:
    cell = Cell(outcome=Outcome.ESCAPED, detail="", seen=True)
    row = Row(attempt="setuid", title="", cells={level: cell})
    report = ProbeReport(levels=(level,), missing={}, seconds={}, rows=(row,))
    assert report.holds is (level is Level.NONE)


def test_the_table_shows_what_gets_through(
    unprotected: tuple[dict[str, Cell], list[Path]],
) -> None:
    cells, _ = unprotected
    rows = tuple(
        Row(attempt=name, title=TITLES[name], cells={Level.USER: cell})
        for name, cell in cells.items()
    )
    report = ProbeReport(levels=(Level.USER,), missing={Level.DOCKER: "no"}, seconds={}, rows=rows)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(report))
    shown = console.export_text()
    assert re.search(r"│ outlive the evaluation +│ ESCAPED", shown)
    assert "user: outlive the evaluation: ESCAPED: 3 processes are left" in shown
    assert "docker does not work here: no" in shown
    assert "A LEVEL LETS SOMETHING THROUGH" in shown


def test_the_doctor_prints_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Availability(Level.BUBBLEWRAP, False, "bwrap is not installed")
    monkeypatch.setattr("harness.escapes.probe.probe", lambda: (missing,))
    shown = CliRunner().invoke(app, ["doctor", "--probe"])
    assert shown.exit_code == 0, shown.output
    assert "bwrap is not installed" in shown.output
    assert "no level above none works here" in shown.output
    report = CliRunner().invoke(app, ["doctor", "--probe", "--json"])
    assert ProbeReport.model_validate_json(report.stdout).levels == ()


def test_a_report_that_is_no_report_is_no_proof() -> None:
    lines = ["x", REPORT, REPORT + "[]", REPORT + '{"attempt": "fork"}', REPORT + "{" * 9000]
    good = {"attempt": "mknod", "through": [], "refused": ["no"], "evidence": [], "broke": ""}
    report = read_report("\n".join([*lines, REPORT + json.dumps(good)]))
    assert report.keys() == {"mknod"}


def test_every_attempt_has_a_title() -> None:
    assert TITLES.keys() == (TOUR | ENDING).keys()
    assert all(KNOWN_GAPS[level].keys() <= TITLES.keys() for level in Level)


def test_the_documentation_shows_the_same_table() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    levels = [str(level) for level in Level]
    header = re.search(r"^\| attempt \|(.+)\|$", text, re.MULTILINE)
    assert header is not None
    assert [name.strip(" `") for name in header[1].split("|")] == levels
    for attempt, title in TITLES.items():
        row = re.search(rf"^\| {re.escape(title)} \|(.+)\|$", text, re.MULTILINE)
        assert row is not None, title
        cells = [cell.strip() for cell in row[1].split("|")]
        for level, cell in zip(Level, cells, strict=True):
            gap = attempt in KNOWN_GAPS[level] or attempt in GAPS_WITHOUT_SIGHT.get(level, {})
            assert cell.startswith("gap") == gap, (attempt, level, cell)
