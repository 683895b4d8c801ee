"""`validator status`: what is shown while somebody waits, and the exit status."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from harness.cli import publish, remote
from harness.errors import Code, InputError, JudgeError
from tests.client.standin import Answer, Asked, Standin, answered, evaluation, serving, submission

app = typer.Typer()
publish.add_to(app)
remote.add_to(app)

WAITS = submission(state="queued", verdict=None, evaluations=[])
RUNS = submission(
    state="running",
    verdict=None,
    evaluations=[
        evaluation(state="running", verdict=None, code=None, run_mfus=[], progress="· run 1\n")
    ],
)
REJECTED = submission(
    verdict="rejected",
    evaluations=[
        evaluation(verdict="rejected", code="loss_mismatch", message="the loss is off", run_mfus=[])
    ],
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.01)
    with serving() as started:
        yield started


def _says(server: Standin, *looks: dict[str, Any] | Answer) -> None:
    """One look after the other; the last one stays."""
    left = list(looks)

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/api/v1/queue"):
            return answered(200, {"length": 1, "entries": [{"position": 2, "submission": 17}]})
        look = left.pop(0) if len(left) > 1 else left[0]
        return look if isinstance(look, Answer) else answered(200, look)

    server.answer = answer


def _status(server: Standin, *options: str) -> Result:
    return CliRunner().invoke(app, ["status", "17", "--server", server.url, *options])


@pytest.mark.parametrize(
    ("seen", "exit_status", "words"),
    [
        (submission(), 0, "ACCEPTED"),
        (REJECTED, 1, "REJECTED  [loss_mismatch]"),
        (
            submission(state="invalidated", why="reads the answer"),
            1,
            "invalidated: reads the answer",
        ),
        (submission(state="held", why="the organiser looks"), 0, "held: the organiser looks"),
        (submission(state="failed", verdict=None, evaluations=[]), 3, "failed"),
        (submission(state="cancelled", verdict="error"), 4, "cancelled"),
        (WAITS, 4, "it waits, 1 before it"),
        (RUNS, 4, "being judged: run 1"),
    ],
)
def test_the_exit_status_is_that_of_a_run_or_says_that_there_is_no_verdict(
    server: Standin, seen: dict[str, Any], exit_status: int, words: str
) -> None:
    _says(server, seen)
    done = _status(server)
    assert done.exit_code == exit_status, done.output
    assert words in done.output
    assert "submission 17 of ada: train.py, season autumn" in done.output


def test_an_accepted_one_shows_its_runs(server: Standin) -> None:
    _says(server, submission())
    assert "MFU by run: 40.00%, 42.00%" in _status(server).output


def test_who_watches_sees_its_turn_then_the_phases_then_the_verdict(server: Standin) -> None:
    _says(server, WAITS, WAITS, RUNS, RUNS, submission())
    done = _status(server, "--watch")
    assert done.exit_code == 0
    lines = [line.strip() for line in done.output.splitlines()]
    order = ["· train.py handed in", "· it waits, 1 before it", "· run 1", "ACCEPTED"]
    assert [line for line in lines if line in order] == order


def test_a_server_that_is_gone_for_a_moment_is_asked_again(server: Standin) -> None:
    _says(server, RUNS, Answer(503, b""), Answer(raw=b""), REJECTED)
    done = _status(server, "--watch")
    assert done.exit_code == 1
    assert "the loss is off" in done.output


def test_a_server_that_stays_away_is_given_up(
    server: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.1)
    _says(server, RUNS, Answer(503, b""))
    done = _status(server, "--watch")
    assert isinstance(done.exception, JudgeError)


def test_a_server_that_was_never_there_is_not_waited_for(
    server: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.5)
    _says(server, Answer(503, b""))
    done = _status(server, "--watch")
    assert isinstance(done.exception, JudgeError)
    assert len(server.asked) == 1


def test_an_unknown_number_ends_the_watch(server: Standin) -> None:
    _says(server, RUNS, answered(404, {"code": "unknown_id", "message": "there is none"}))
    done = _status(server, "--watch")
    assert isinstance(done.exception, InputError)
    assert done.exception.code is Code.UNKNOWN_ID
