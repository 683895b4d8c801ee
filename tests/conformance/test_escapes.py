"""Every attempt to escape: from a bare program, and from a train file in a real evaluation."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, Verdict
from harness.escapes.inside import TOUR
from harness.escapes.probe import probe_level, read_report
from harness.escapes.report import KNOWN_GAPS, TITLES, Cell, Outcome, escaped, known_gaps
from harness.escapes.stage import TEMPORARY_FOLDERS, Scene
from harness.paths import ESCAPES_PACKAGE
from harness.result import EvaluationResult
from harness.sandbox import Level, Sandbox
from tests.conformance.promises import Promise, promised
from tests.edited import differing
from tests.judging import Judge, explain
from tests.project import ROOT
from tests.sandbox_levels import HOME, public_copy, work_folder

pytest_plugins = ("tests.sandbox_levels", "tests.judging")
pytestmark = promised(Promise.ESCAPES)

# What a machine may lack: loadable modules, devices.
MAY_BE_MISSING = {"module", "devices"}
# The ranks of a real evaluation have taken their sockets already.
FROM_A_TRAIN_FILE = tuple(name for name in TOUR if name != "neighbour_socket")


# From a bare program.


@pytest.fixture(scope="session")
def table(level: Level) -> dict[str, Cell]:
    """All attempts at a level: `validator doctor --probe` makes the same ones."""
    cells = probe_level(Sandbox(level))
    assert cells.keys() == TITLES.keys()
    return cells


@pytest.mark.parametrize("attempt", TITLES)
def test_no_attempt_gets_out(level: Level, table: dict[str, Cell], attempt: str) -> None:
    cell = table[attempt]
    assert cell.outcome is not Outcome.ESCAPED, cell
    assert cell.outcome is not Outcome.NOT_TRIED or attempt in MAY_BE_MISSING, cell
    assert cell.outcome is not Outcome.GAP or attempt in known_gaps(level), cell


# From inside a train file.

ATTACK = """

import json, os, sys, tempfile

_folder = tempfile.mkdtemp()
os.mkdir(_folder + "/escapes")
for _name, _text in {sources!r}.items():
    with open(_folder + "/escapes/" + _name, "w") as _file:
        _file.write(_text)
sys.path.insert(0, _folder)
from escapes import ENDING, TOUR
from escapes.stage import Briefing, make

_stage = json.loads({stage!r})
_stage["root"] = os.path.dirname(os.environ["TRAINJUDGE_OUTBOX"])
_attempts = {attempts!r} if os.environ["RANK"] == "0" else ()
_honest_setup = globals().get("setup", lambda model, device, num_gpus: model)


def setup(model, device, num_gpus):
    global _attempts
    for name in _attempts:
        print(make(name, (TOUR | ENDING)[name], Briefing.from_json(json.dumps(_stage))), flush=True)
    _attempts = ()
    return _honest_setup(model, device, num_gpus)
"""

GIVE_UP = """

_setup = setup


def setup(model, device, num_gpus):
    _setup(model, device, num_gpus)
    raise RuntimeError("that is all")
"""


def train_file(folder: Path, scene: Scene, attempts: tuple[str, ...], honest: str) -> Path:
    """An honest train file whose setup() makes attempts first."""
    attack = ATTACK.format(
        sources={path.name: path.read_text() for path in ESCAPES_PACKAGE.glob("*.py")},
        stage=json.dumps(asdict(scene.stage)),
        attempts=attempts,
    )
    body = (ROOT / "tests" / "submissions" / honest).read_text()
    path = folder / "train.py"
    path.write_text(body + attack)
    return path


@pytest.fixture(scope="module")
def public_snapshot(
    request: pytest.FixtureRequest, loaded: LoadedHparams, judge_home: Path
) -> Iterator[Snapshot]:
    """Where the user of level `user` can reach it, as pytest's own folders are not."""
    with work_folder() as folder, pytest.MonkeyPatch.context() as patch:
        ready = os.environ.get(HOME)
        if ready is None:
            request.getfixturevalue("snapshot")
            ready = str(public_copy(judge_home, folder))
        patch.setenv("TRAINJUDGE_HOME", ready)
        yield preload(loaded)


@pytest.fixture
def greedy(quick: LoadedHparams, tmp_path: Path) -> LoadedHparams:
    """Limits that one rank stays below, and that an attempt soon passes."""
    changes = {
        "limits.processes": 128, "limits.memory_bytes": 2**30,
        "limits.outbox_bytes": 64 * 2**20, "limits.tmp_bytes": 64 * 2**20,
    }  # fmt: skip
    return differing(quick, tmp_path, changes)


@pytest.fixture
def scene(sandbox: Sandbox, public_snapshot: Snapshot) -> Iterator[Scene]:
    """Decoys at the test's level; the evaluation's own folders are the real ones."""
    with Scene(sandbox) as scene:
        scene.stage = replace(
            scene.stage,
            model=str(public_snapshot.model_dir),
            corpus=str(public_snapshot.tokens_file),
            hellos=(),
        )
        yield scene


def got_nothing(level: Level, scene: Scene, result: EvaluationResult) -> None:
    """Every attempt of FROM_A_TRAIN_FILE was made, and the judge sees that none got out."""
    said = read_report(result.log)
    assert said.keys() == set(FROM_A_TRAIN_FILE), explain(result)
    for name in FROM_A_TRAIN_FILE:
        assert not said[name].broke, (name, said[name])
        tried = (*said[name].refused, *said[name].through)
        assert tried or name in MAY_BE_MISSING, f"{name}: nothing was tried"
        if said[name].through:
            cell = escaped(level, name, said[name].through, seen=False)
            assert cell.outcome is Outcome.GAP, (name, cell)
    for name, secret in scene.secrets.items():
        assert secret not in said[name].evidence or name in KNOWN_GAPS[level], name
    assert scene.judge.process.poll() is None
    assert scene.neighbour.running.ended() is None
    assert scene.listeners.heard <= KNOWN_GAPS[level].keys()
    assert scene.made(Path(scene.stage.model), *TEMPORARY_FOLDERS) == []


def test_a_train_file_gets_nothing_out_of_the_judge(
    level: Level, judge: Judge, quick: LoadedHparams, scene: Scene, tmp_path: Path
) -> None:
    """All that does not end the sandbox; then it gives up, which saves the training."""
    file = train_file(tmp_path, scene, FROM_A_TRAIN_FILE, "honest.py")
    with file.open("a") as source:
        source.write(GIVE_UP)
    result = judge(file, quick, 1)
    assert (result.verdict, result.code) == (Verdict.REJECTED, Code.SETUP_FAILED), explain(result)
    assert "that is all" in result.message
    got_nothing(level, scene, result)


@pytest.mark.slow  # sandbox/test_docker.py and test_evaluation.py judge an honest file in the quick run
def test_a_train_file_that_has_tried_all_is_judged_like_any_other(
    level: Level,
    sandbox: Sandbox,
    judge: Judge,
    quick: LoadedHparams,
    scene: Scene,
    tmp_path: Path,
) -> None:
    """Two ranks train, honestly and undisturbed."""
    file = train_file(tmp_path, scene, FROM_A_TRAIN_FILE, "honest_ddp.py")
    result = judge(file, quick, 2)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert result.isolation == level
    assert result.benchmark.image == (sandbox.image.digest if sandbox.image else None)
    got_nothing(level, scene, result)


@pytest.mark.slow  # that a limit is a verdict is test_session.py's and test_evaluation.py's
@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        ("fork", Code.PROCESS_LIMIT),
        ("deleted_files", Code.OUTBOX_LIMIT),
        ("mapped_files", Code.OUTBOX_LIMIT),
        ("memory", Code.MEMORY_LIMIT),
        ("outbox", Code.OUTBOX_LIMIT),
    ],
)
def test_a_train_file_that_takes_too_much_is_ended(
    level: Level,
    judge: Judge,
    greedy: LoadedHparams,
    scene: Scene,
    tmp_path: Path,
    attempt: str,
    code: Code,
) -> None:
    if attempt in known_gaps(level):
        pytest.skip(f"a known gap of level {level}")
    limits = greedy.hparams.limits
    scene.stage = replace(
        scene.stage,
        tasks=2 * limits.processes,
        memory_bytes=2 * limits.memory_bytes,
        folder_bytes=2 * limits.outbox_bytes,
    )
    result = judge(train_file(tmp_path, scene, (attempt,), "honest.py"), greedy, 1)
    assert (result.verdict, result.code) == (Verdict.REJECTED, code), explain(result)
