"""What many tests share: the embedded benchmark and its snapshot, made once a session."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.preload import preload
from harness.benchmark.snapshot import Snapshot
from harness.host.timing import HELD
from tests.corpus import CORPUS_ROW, show
from tests.edited import written
from tests.project import ROOT, Edit
from tests.side_by_side import ByFile


@pytest.fixture(scope="session", autouse=True)
def judge_home() -> Iterator[Path]:
    """A home of the judge for this session, so that no test reads or writes the user's own.

    Not among pytest's folders, which it closes to others, again whenever it is started: at level `user` a
    sandbox reads the model here.
    """
    with (
        tempfile.TemporaryDirectory(prefix="trainjudge-home-") as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        home = Path(name)
        home.chmod(0o711)
        patch.setenv("TRAINJUDGE_HOME", str(home))
        patch.setenv("TRAINJUDGE_DATA", str(home / "data"))
        # What tests judge is not timed for anybody: two test runs need not wait for each other.
        patch.setenv(HELD, "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield home


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What came of the files of the corpus, whichever process judged them."""
    rows = [
        tuple(value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == CORPUS_ROW
    ]
    if rows:
        show(rows, Console(width=160))


@pytest.fixture(scope="session")
def loaded() -> LoadedHparams:
    """The embedded benchmark, hparams.json of the project."""
    return load(ROOT / "hparams.json")


@pytest.fixture(scope="session")
def snapshot(loaded: LoadedHparams, judge_home: Path) -> Snapshot:
    """The snapshot of the embedded benchmark, at the default place below `judge_home`."""
    return preload(loaded)


@pytest.fixture
def raw_hparams(loaded: LoadedHparams) -> dict[str, Any]:
    """The fields of hparams.json, to be changed at will; files are named by absolute path."""
    raw: dict[str, Any] = json.loads(loaded.path.read_bytes())
    raw["model"]["tokenizer"] = str(loaded.resolve(raw["model"]["tokenizer"]))
    raw["data"]["file"] = str(loaded.resolve(raw["data"]["file"]))
    return raw


@pytest.fixture
def edited(raw_hparams: dict[str, Any], tmp_path: Path) -> Edit:
    """Make a benchmark that differs: `edited({"steps.max": 5, "model": {...}})`."""

    def edit(changes: dict[str, Any]) -> LoadedHparams:
        return written(raw_hparams, tmp_path, changes)

    return edit
