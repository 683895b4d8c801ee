"""Every attempt to escape, at every level that works here: from a bare program and from a train file.

The table itself is put to the test too: it has to show what level `none` lets through, and
`docs/security.md` has to name the gaps that it passes over.
"""

import io
import json
import mmap
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from judging import ROOT, Judge, explain
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import Code, Verdict
from harness.escape_decoys import processes_with
from harness.escape_probe import probe_level, read_report
from harness.escape_report import (
    GAPS_WITHOUT_SIGHT,
    KNOWN_GAPS,
    TITLES,
    Cell,
    Outcome,
    ProbeReport,
    Row,
    escaped,
    known_gaps,
    render,
)
from harness.escape_stage import PACKAGE, TEMPORARY_FOLDERS, Scene
from harness.hparams import LoadedHparams, load
from harness.preload import preload
from harness.sandbox import Availability, Level, Sandbox, choose
from harness.sandbox.escapes import ENDING, TOUR
from harness.sandbox.escapes.stage import REPORT
from harness.sandbox.watch import nameless_bytes
from harness.snapshot import Snapshot

pytest_plugins = ("sandbox_levels", "judging")

# What a machine may lack: loadable modules, devices.
MAY_BE_MISSING = {"module", "devices"}
# The ranks of a real evaluation have taken their sockets already.
NOT_FROM_A_TRAIN_FILE = {"neighbour_socket"}


# Stands for what is otherwise random, so that what is left can be found.
MARK = secrets.token_hex(16)


@pytest.fixture
def sandbox(isolated: Level) -> Sandbox:
    return choose(isolated)


def test_no_attempt_gets_out_of_a_level_that_protects(isolated: Level) -> None:
    cells = probe_level(Sandbox(isolated))
    assert cells.keys() == TITLES.keys()
    wrong = {
        name: cell
        for name, cell in cells.items()
        if cell.outcome is Outcome.ESCAPED
        or (cell.outcome is Outcome.NOT_TRIED and name not in MAY_BE_MISSING)
        or (cell.outcome is Outcome.GAP and name not in known_gaps(isolated))
    }
    assert not wrong


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
    monkeypatch.setattr("harness.escape_probe.probe", lambda: (missing,))
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


def test_files_without_a_name_are_counted_where_they_take_room(tmp_path: Path) -> None:
    named = (tmp_path / "named").open("wb")
    nameless = (tmp_path / "nameless").open("w+b")
    for file in (named, nameless):
        file.write(bytes(5000))
        file.flush()
    elsewhere = os.memfd_create("elsewhere")
    os.write(elsewhere, bytes(5000))

    def counted(mapped: bool = False) -> int:
        return nameless_bytes([os.getpid()], str(tmp_path), mapped=mapped)

    before = counted()
    (tmp_path / "nameless").unlink()
    size = os.fstat(nameless.fileno()).st_blocks * 512
    assert counted() - before == size >= 5000
    held = mmap.mmap(nameless.fileno(), 4096)
    os.close(elsewhere)
    for file in (named, nameless):
        file.close()
    assert counted() - before == size  # Python's mmap keeps a descriptor of its own
    held.close()
    assert counted() == before


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


# --- from inside a train file --------------------------------------------------------------------

ATTACK = """

import json, os, sys, tempfile

_folder = tempfile.mkdtemp()
os.mkdir(_folder + "/escapes")
for _name, _text in {sources!r}.items():
    with open(_folder + "/escapes/" + _name, "w") as _file:
        _file.write(_text)
sys.path.insert(0, _folder)
from escapes import ENDING, TOUR
from escapes.stage import Stage, make

_stage = json.loads({stage!r})
_stage["root"] = os.path.dirname(os.environ["TRAINJUDGE_OUTBOX"])
_attempts = {attempts!r} if os.environ["RANK"] == "0" else ()
_honest_setup = globals().get("setup", lambda model, device, num_gpus: model)


def setup(model, device, num_gpus):
    global _attempts
    for name in _attempts:
        print(make(name, (TOUR | ENDING)[name], Stage.from_json(json.dumps(_stage))), flush=True)
    _attempts = ()
    return _honest_setup(model, device, num_gpus)
"""


def train_file(folder: Path, scene: Scene, attempts: tuple[str, ...], honest: str) -> Path:
    """An honest train file whose setup() makes attempts first."""
    attack = ATTACK.format(
        sources={path.name: path.read_text() for path in PACKAGE.glob("*.py")},
        stage=json.dumps(asdict(scene.stage)),
        attempts=attempts,
    )
    body = (ROOT / "tests" / "submissions" / honest).read_text()
    path = folder / "train.py"
    path.write_text(body + attack)
    return path


@pytest.fixture(scope="module")
def snapshot(loaded: LoadedHparams) -> Iterator[Snapshot]:
    """Where the user of level `user` can reach it, as pytest's own folders are not."""
    home = Path(tempfile.mkdtemp(prefix="trainjudge-test-"))
    home.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINJUDGE_HOME", str(home))
        yield preload(loaded)
    shutil.rmtree(home)


@pytest.fixture
def greedy(quick: LoadedHparams, tmp_path: Path) -> LoadedHparams:
    """Limits that one rank stays below, and that an attempt soon passes."""
    raw = json.loads(quick.path.read_bytes())
    small = {"processes": 128, "memory_bytes": 2**30, "outbox_bytes": 64 * 2**20}
    raw["limits"] |= small | {"tmp_bytes": 64 * 2**20}
    path = tmp_path / "hparams.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return load(path)


@pytest.fixture
def scene(sandbox: Sandbox, snapshot: Snapshot) -> Iterator[Scene]:
    """Decoys at the test's level; the evaluation's own folders are the real ones."""
    with Scene(sandbox) as scene:
        scene.stage = replace(
            scene.stage,
            model=str(snapshot.model_dir),
            corpus=str(snapshot.tokens_file),
            hellos=(),
        )
        yield scene


def test_a_train_file_gets_nothing_out_of_the_judge(
    isolated: Level, judge: Judge, quick: LoadedHparams, scene: Scene, tmp_path: Path
) -> None:
    """All that does not end the sandbox; afterwards it trains, honestly and undisturbed."""
    attempts = tuple(name for name in TOUR if name not in NOT_FROM_A_TRAIN_FILE)
    file = train_file(tmp_path, scene, attempts, "honest_ddp.py")
    result = judge(file, quick, 2)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    said = read_report(result.log)
    assert said.keys() == set(attempts)
    for name in attempts:
        assert not said[name].broke, (name, said[name])
        tried = (*said[name].refused, *said[name].through)
        assert tried or name in MAY_BE_MISSING, f"{name}: nothing was tried"
        if said[name].through:
            cell = escaped(isolated, name, said[name].through, seen=False)
            assert cell.outcome is Outcome.GAP, (name, cell)
    for name, secret in scene.secrets.items():
        assert secret not in said[name].evidence or name in KNOWN_GAPS[isolated], name
    assert scene.judge.process.poll() is None
    assert scene.neighbour.running.ended() is None
    assert scene.listeners.heard <= KNOWN_GAPS[isolated].keys()
    assert scene.made(Path(scene.stage.model), *TEMPORARY_FOLDERS) == []


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        ("fork", Code.PROCESS_LIMIT),
        pytest.param("deleted_files", Code.OUTBOX_LIMIT, marks=pytest.mark.slow),
        pytest.param("mapped_files", Code.OUTBOX_LIMIT, marks=pytest.mark.slow),
        pytest.param("memory", Code.MEMORY_LIMIT, marks=pytest.mark.slow),
        pytest.param("outbox", Code.OUTBOX_LIMIT, marks=pytest.mark.slow),
    ],
)
def test_a_train_file_that_takes_too_much_is_ended(
    isolated: Level,
    judge: Judge,
    greedy: LoadedHparams,
    scene: Scene,
    tmp_path: Path,
    attempt: str,
    code: Code,
) -> None:
    if attempt in known_gaps(isolated):
        pytest.skip(f"a known gap of level {isolated}")
    limits = greedy.hparams.limits
    scene.stage = replace(
        scene.stage,
        tasks=2 * limits.processes,
        memory_bytes=2 * limits.memory_bytes,
        folder_bytes=2 * limits.outbox_bytes,
    )
    result = judge(train_file(tmp_path, scene, (attempt,), "honest.py"), greedy, 1)
    assert (result.verdict, result.code) == (Verdict.REJECTED, code), explain(result)
