"""The leaderboard from a terminal: every command of participant and organiser (docs/organise.md)."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.cli import app
from harness.errors import Code, TrainjudgeError
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

FILE = ROOT / "submissions" / "train_ep.py"
HARDWARE = ("--hardware", "2 CPU cores, x86_64", "--peak", "0.06")


class Board:
    """Commands with a board's folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str | Path, status: int = 0) -> str:
        """What a command prints, stderr included; it has to end with this status."""
        done = self.run(*words)
        assert done.exit_code == status, (done.output, done.exception)
        return done.output

    def refuses(self, *words: str | Path) -> TrainjudgeError:
        """Why a command does nothing."""
        error = self.run(*words).exception
        assert isinstance(error, TrainjudgeError), error
        return error

    def run(self, *words: str | Path) -> Result:
        options = ("--data", str(self.folder))
        return CliRunner(env={"COLUMNS": "160"}).invoke(app, [*map(str, words), *options])


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Nothing is in its folder yet."""
    return Board(tmp_path / "board")


@pytest.fixture
def season(board: Board) -> Board:
    """A season that is open, and an author."""
    board("season", "new", "autumn", *HARDWARE)
    board("author", "add", "ada")
    return board


# --- the organiser's ----------------------------------------------------------------------------


def test_a_season_says_what_it_fixes_when_it_is_opened_and_ever_after(
    board: Board, tmp_path: Path
) -> None:
    rule = tmp_path / "rule.json"
    rule.write_text('{"pairs": 4, "isolation": ["docker"]}')
    said = board("season", "new", "autumn", *HARDWARE, "--rule", rule, "--ends", "2100-12-31")
    assert "season autumn is open; none of this changes any more" in said
    assert "hardware of the main board 2 CPU cores, x86_64, peak 0.06 TFLOP/s a device" in said
    assert "rule pairs 4, isolation ('docker',)" in said

    shown = board("season", "show")
    assert shown == board("season", "show", "autumn")
    assert "season autumn is open: from " in shown and ", until 2100-12-31 00:00 (UTC)" in shown
    assert "peak 0.06 TFLOP/s a device" in shown
    fields = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert " 4 " in fields["pairs"] and " docker " in fields["isolation"]
    assert "2100-12-31 00:00" in board("season", "list")

    assert board("season", "close", "autumn") == "season autumn is closed\n"
    assert "season autumn is over: from " in board("season", "show")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('{"pairs": -1}', "pairs: Input should be greater than or equal to 0"),
        ("nothing", "the file: Invalid JSON"),
        (None, "No such file or directory"),
    ],
)
def test_a_rule_that_is_none_opens_no_season(
    board: Board, tmp_path: Path, rule: str | None, words: str
) -> None:
    file = tmp_path / "rule.json"
    if rule is not None:
        file.write_text(rule)
    error = board.refuses("season", "new", "autumn", *HARDWARE, "--rule", file)
    assert error.code is Code.BAD_ARGUMENT
    assert words in error.message
    assert "no season yet" in board("season", "list")


def test_a_key_is_shown_once_and_revoked_for_good(board: Board) -> None:
    assert "no author yet" in board("author", "list")
    first, further = board("author", "add", "ada"), board("author", "add", "ada")
    assert first.startswith("key of ada, shown this once and kept nowhere:\n")
    assert further.startswith("further key of ada")
    key = first.splitlines()[-1]
    assert key not in board("author", "list")
    assert board("author", "revoke", "ada", "--key", key) == "1 key(s) of ada revoked\n"
    assert board("author", "revoke", "ada") == "1 key(s) of ada revoked\n"
    assert " none" in board("author", "list")


def test_the_store_is_checked_cleaned_and_copied(season: Board, tmp_path: Path) -> None:
    season("submit", FILE, "--author", "ada")
    checked = season("store", "check")
    season("store", "gc")
    copy = tmp_path / "copy.sqlite"
    assert season("store", "backup", copy) == f"backup in {copy}\n"
    assert season("store", "check", "--store", f"sqlite:///{copy}") == checked
    assert season.refuses("store", "backup", copy).exit_status == 2


# --- the participant's --------------------------------------------------------------------------


def test_a_file_waits_in_the_queue_until_it_is_taken_back(season: Board) -> None:
    assert "nothing runs, and nothing waits" in season("queue")
    assert "submission 1 is queued" in season("submit", FILE, "--author", "ada", "--note", "mine")
    assert "train_ep.py" in season("queue")
    waiting = json.loads(season("queue", "--json"))
    assert waiting["length"] == 1
    assert [(each["position"], each["author"]) for each in waiting["entries"]] == [(1, "ada")]
    assert "autumn: nothing is ranked yet" in season("leaderboard")
    assert "submission 1 of ada: train_ep.py" in season("show", "1")
    assert season.refuses("show", "1", "--json").code is Code.NOT_NOW
    assert "is cancelled" in season("cancel", "1")
    assert "nothing runs, and nothing waits" in season("queue")
    assert season.refuses("cancel", "1").code is Code.NOT_NOW


def test_nobody_is_nobody_and_no_season_takes_nothing(board: Board) -> None:
    assert board.refuses("submit", FILE).message.startswith("whose file is it? --author NAME")
    assert board.refuses("submit", FILE, "--author", "ada").code is Code.UNKNOWN_ID
    assert board.refuses("leaderboard").message.endswith("`validator season new` opens one")
    assert board.refuses("season", "show", "spring").message == "there is no season 'spring'"
    for command in (("show", "7"), ("log", "7"), ("cancel", "7"), ("release", "7", "--why", "x")):
        assert board.refuses(*command).code is Code.UNKNOWN_ID


# --- a competition ------------------------------------------------------------------------------


def test_a_competition_from_the_first_submission_to_a_verdict_that_is_changed(
    board: Board, quick: LoadedHparams, tmp_path: Path
) -> None:
    """With a real worker and a real judge; the level is that which is there for everybody."""
    rule = tmp_path / "rule.json"
    rule.write_text(json.dumps({"isolation": ["none"]}))
    hparams = ("--hparams", quick.path)
    hardware = ("--hardware", "any CPU", "--peak", "0.1")
    board("season", "new", "autumn", *hparams, *hardware, "--rule", rule)
    board("author", "add", "ada")
    board("submit", FILE, "--author", "ada")
    preload(quick)
    worked = board("worker", *hparams, "--once", "--sandbox", "none", "--keep-gib", "1")
    assert "evaluation 1: accepted (ok)" in worked
    assert "1 evaluation(s) finished" in worked

    assert json.loads(board("show", "1", "--json"))["verdict"] == "accepted"
    assert "ACCEPTED" in board("show", "1")
    logged = board("log", "1")
    assert "evaluation 1 finished after" in logged
    assert f"evaluation 1 started on {os.uname().nodename}\n" in logged
    # Whatever the class of this machine is, it is not the season's: on the list, and not on the board.
    assert "nothing is ranked yet" in board("leaderboard")
    assert "ada" in board("leaderboard", "--all")
    assert json.loads(board("leaderboard", "--json"))["entries"] == []
    (entry,) = json.loads(board("leaderboard", "--all", "--json"))["entries"]
    assert (entry["submission"], entry["file_name"], entry["rank"]) == (1, "train_ep.py", None)
    assert entry["why_not"] == "not judged on the season's hardware"

    raw = json.loads(quick.path.read_bytes())
    raw["verify"]["tolerances"]["update_error"] = 1e-12
    tight = tmp_path / "tight.json"
    tight.write_text(json.dumps(raw))
    again = board("rejudge", "1", "--hparams", tight, "--why", "calibrated anew")
    assert "submission 1 was accepted (ok)\nand is rejected (update_mismatch): " in again
    told = board("show", "1")
    assert "REJECTED" in told and "calibrated anew" in told

    assert board("invalidate", "1", "--why", "a test") == "submission 1 is invalidated\n"
    assert board("release", "1", "--why", "a mistake") == "submission 1 can be ranked\n"
    assert "all tables are what they say" in board("store", "check")
