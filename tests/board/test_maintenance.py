"""The store is what its events say: a replay gives the same tables, and a check finds damage."""

import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text

from harness.board import events as ev
from harness.board.leases import Leases
from harness.board.maintenance import check, collect_garbage
from harness.board.organise import (
    SeasonPlan,
    add_author,
    close_season,
    invalidate,
    new_key,
    open_season,
    release,
    revoke_keys,
)
from harness.board.outcome import finish, keep_document
from harness.board.queue import LeaseLostError, Taken, WorkerId, fail, give_back, take
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import cancel
from harness.errors import Code, InputError, Verdict
from tests.board.conftest import Raw
from tests.board.examples import (
    HARDWARE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    rejected_result,
)

# --- replay --------------------------------------------------------------------------------------


#: What a life has to have had in it, to be worth a replay.
EVENTFUL = {
    "alarm_raised",
    "compared",
    "evaluation_given_back",
    "evaluation_rejudged",
    "submission_cancelled",
    "submission_held",
    "submission_invalidated",
}


class Life:
    """What can happen on a board, in any order; what is refused has to change nothing."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.held: list[Taken] = []
        self.submissions = 0
        self.done = 0

    def step(self) -> None:
        actions: list[tuple[int, Callable[[], object]]] = [
            (4, self.submit),
            (8, self.take),
            (8, self.end),
            (1, lambda: add_author(self.store, self.author())),
            (1, lambda: new_key(self.store, self.author())),
            (1, lambda: revoke_keys(self.store, self.author())),
            (2, lambda: cancel(self.store, self.submission())),
            (2, lambda: invalidate(self.store, self.submission(), "found out")),
            (2, lambda: release(self.store, self.submission(), "looked at it")),
            (1, lambda: close_season(self.store, self.random.choice(["old", "winter"]))),
            (1, lambda: open_season(self.store, plan(self.random.choice(["old", "winter"])))),
            (1, self.compare),
            (1, self.rejudge),
        ]
        weights = [weight for weight, _ in actions]
        (action,) = self.random.choices([action for _, action in actions], weights)
        with suppress(InputError, LeaseLostError):
            action()
            self.done += 1

    def author(self) -> str:
        return self.random.choice(["ada", "bob", "cyd"])

    def submission(self) -> int:
        return self.random.randint(1, max(1, self.submissions))

    def submit(self) -> None:
        number = self.random.randint(1, 3)
        self.submissions = hand_in(self.store, self.author(), number, season="autumn")

    def take(self) -> None:
        machine = self.random.randint(1, 3)
        worker = WorkerId(f"w{machine}:x:1", f"machine-{machine}")
        Leases(self.store).seen(worker, "waiting")
        if (taken := take(self.store, worker, HPARAMS_SHA256)) is not None:
            self.held.append(taken)

    def end(self) -> None:
        if not self.held:
            return
        taken = self.held.pop(self.random.randrange(len(self.held)))
        Leases(self.store).renew(taken, "run 1 of 3")
        how = self.random.choice(["accept", "accept", "reject", "reject", "error", "back", "fail"])
        if how == "back":
            give_back(self.store, taken, "asked to")
        elif how == "fail":
            fail(self.store, taken, "broke down")
        else:
            result = {
                "accept": accepted_result((self.random.uniform(0.1, 1.1), 0.3)),
                "reject": rejected_result(),
                "error": error_result(),
            }[how]
            finish(self.store, taken, result, self.random.uniform(1, 100))

    def compare(self) -> None:
        with self.store.write() as writer:
            if self.submissions < 2:
                return
            contender, leader = self.random.sample(range(1, self.submissions + 1), 2)
            ratios = (1.02, 1.03)
            writer.append(
                ev.Compared(
                    season=1, contender=contender, leader=leader, ratios=ratios, ratio=1.025,
                    low=1.02, faster=True,
                ),
                submission=contender,
            )  # fmt: skip

    def rejudge(self) -> None:
        with self.store.write() as writer:
            query = text("SELECT id, submission_id FROM evaluations WHERE state = 'finished'")
            rows = sorted(tuple(row) for row in writer.session.execute(query))
            if rows:
                evaluation, submission = self.random.choice(rows)
                rejudged(self.store, evaluation, submission, writer)


def plan(name: str) -> SeasonPlan:
    return SeasonPlan(name, "d" * 64, "b", 2, HARDWARE, ScoringRule())


def rejudged(store: Store, evaluation: int, submission: int, writer: object = None) -> None:
    """As `validator rejudge` writes it: rejected by today's checks."""
    if writer is None:
        with store.write() as opened:
            rejudged(store, evaluation, submission, opened)
        return
    writer.append(  # type: ignore[attr-defined]
        ev.EvaluationRejudged(
            evaluation=evaluation,
            verdict=Verdict.REJECTED,
            code=Code.UPDATE_MISMATCH,
            message="by today's tolerances",
            result_sha256=keep_document(writer, rejected_result()),  # type: ignore[arg-type]
            run_mfus=(),
            failed_runs=1,
            tokens_per_second=None,
            why="calibrated anew",
        ),
        submission=submission,
    )


@pytest.mark.parametrize("seed", [4, 5])
def test_a_replay_of_any_life_gives_the_same_tables(store: Store, raw: Raw, seed: int) -> None:
    board_with(store, "ada", "bob", rule=ScoringRule(max_attempts=2, submissions_per_day=1000))
    life = Life(store, seed)
    for _ in range(90):
        before = store.last_event()
        done = life.done
        life.step()
        assert life.done > done or store.last_event() == before, "what was refused has changed it"
    kinds = {kind for (kind,) in raw("SELECT DISTINCT kind FROM events")}
    assert kinds >= EVENTFUL, EVENTFUL - kinds
    report = check(store)
    assert report.problems == ()
    assert report.summary == f"{store.last_event()} events replayed: all tables are what they say"


# --- damage --------------------------------------------------------------------------------------


@pytest.fixture
def lived(store: Store) -> Iterator[Store]:
    """A board on which a little has happened."""
    board_with(store, "ada")
    hand_in(store, "ada", 1)
    hand_in(store, "ada", 2)
    judge_next(store, accepted_result())
    judge_next(store, rejected_result())
    assert check(store).problems == ()
    yield store


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (
            "UPDATE authors SET name = 'eve' WHERE id = 1",
            "authors 1: name is 'eve' instead of 'ada'",
        ),
        ("UPDATE keys SET revoked_at = 5", "keys 1: revoked_at is 5.0 instead of None"),
        ("UPDATE seasons SET ends_at = 5", "seasons 1: ends_at is 5.0 instead of None"),
        (
            "UPDATE submissions SET state = 'held' WHERE id = 2",
            "submissions 2: state is 'held' instead of 'judged'",
        ),
        (
            "UPDATE evaluations SET verdict = 'accepted' WHERE id = 2",
            "evaluations 2: verdict is 'accepted' instead of 'rejected'",
        ),
        (
            "UPDATE evaluations SET seconds = 1 WHERE id = 1",
            "evaluations 1: seconds is 1.0 instead",
        ),
        ("DELETE FROM keys", "keys 1: only the events know it"),
        (
            "INSERT INTO authors VALUES (7, 'eve', 1, 0)",
            "authors 7: only the table knows it",
        ),
        ("DELETE FROM evaluations WHERE id = 1", "evaluations"),
        ("UPDATE sources SET content = :x", "its content has changed"),
        ("UPDATE documents SET compressed = :x", "its content has changed"),
        ("DELETE FROM sources", "submission 1: its source"),
        ("DELETE FROM documents", "evaluation 1: its result"),
    ],
)
def test_damage_is_found(lived: Store, raw: Raw, damage: str, found: str) -> None:
    raw(damage, **({"x": b"x"} if ":x" in damage else {}))
    problems = check(lived).problems
    assert any(found in problem for problem in problems), problems


def test_a_changed_number_of_a_run_is_found(lived: Store, raw: Raw) -> None:
    ((before,),) = raw("SELECT run_mfus FROM evaluations WHERE id = 1")
    raw("UPDATE evaluations SET run_mfus = :m WHERE id = 1", m=bytes(before)[:-1] + b"\x40")
    assert any("run_mfus" in problem for problem in check(lived).problems)


def test_a_document_of_something_else_is_found(lived: Store, raw: Raw) -> None:
    raw("UPDATE documents SET compressed = :c", c=zlib.compress(b"{}"))
    problems = check(lived).problems
    assert len([problem for problem in problems if "its content has changed" in problem]) == 2


@pytest.fixture
def unguarded(lived: Store, raw: Raw, database: str) -> Store:
    """As for somebody who has the database and removes what guards the events."""
    if database == "sqlite":
        for change in ("update", "delete", "insert"):
            raw(f"DROP TRIGGER events_no_{change}")
    else:
        raw("ALTER TABLE events DISABLE TRIGGER USER")
    return lived


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE events SET body = '{}' WHERE id = 5", "event 5 cannot be carried out"),
        ("UPDATE events SET body = 'x' WHERE id = 5", "event 5 cannot be carried out"),
        ("DELETE FROM events WHERE id = 5", "event 5 is missing"),
        ("UPDATE events SET submission = 2 WHERE id = 4", "event 4: its columns are not"),
        ("UPDATE events SET evaluation = 2 WHERE id = 5", "event 5: its columns are not"),
        ("UPDATE events SET kind = 'key_issued' WHERE id = 5", "event 5: its columns are not"),
        # With the quotation marks: the hash of a key may hold the three letters too.
        (
            "UPDATE events SET body = replace(body, '\"ada\"', '\"eve\"')",
            "authors 1: name is 'ada'",
        ),
        ("UPDATE events SET at = at + 1 WHERE id = 4", "submissions 1: at is"),
        (
            "UPDATE events SET body = replace(body, '\"submission\":1', '\"submission\":9')"
            " WHERE id = 5",
            "event 5 cannot be carried out",
        ),
    ],
)
def test_a_changed_history_is_found(unguarded: Store, raw: Raw, damage: str, found: str) -> None:
    raw(damage)
    report = check(unguarded)
    assert any(found in problem for problem in report.problems), report.problems
    assert "problem(s)" in report.summary


def test_many_problems_are_counted_and_not_all_listed(store: Store, raw: Raw) -> None:
    for number in range(30):
        add_author(store, f"author-{number}")
    raw("DELETE FROM keys")
    report = check(store)
    assert len(report.problems) == 21
    assert report.problems[-1] == "and 10 more"
    assert report.summary.endswith("30 problem(s)")


# --- garbage -------------------------------------------------------------------------------------


def test_what_no_event_names_is_removed_and_nothing_else(lived: Store, raw: Raw) -> None:
    raw("INSERT INTO sources VALUES (:sha, :empty, :empty)", sha="0" * 64, empty=b"")
    raw("INSERT INTO documents VALUES (:sha, :empty)", sha="0" * 64, empty=b"")
    long_ago = lived.now() - 2 * 86_400
    raw("INSERT INTO workers VALUES ('gone', 'm', :at, '')", at=long_ago)
    raw("INSERT INTO workers VALUES ('here', 'm', :at, '')", at=long_ago + 86_500)
    assert collect_garbage(lived) == "removed 1 source(s), 1 result(s), 1 worker(s)"
    assert raw("SELECT name FROM workers") == [("here",)]
    assert collect_garbage(lived) == "removed 0 source(s), 0 result(s), 0 worker(s)"
    assert check(lived).problems == ()


def test_a_result_that_was_replaced_is_history_and_stays(lived: Store, raw: Raw) -> None:
    rejudged(lived, evaluation=1, submission=1)
    before = raw("SELECT sha256 FROM documents ORDER BY sha256")
    collect_garbage(lived)
    assert raw("SELECT sha256 FROM documents ORDER BY sha256") == before
    ((first,),) = raw("SELECT result_sha256 FROM evaluations WHERE id = 2")
    raw("DELETE FROM documents WHERE sha256 <> :first", first=first)
    assert any("its result" in problem for problem in check(lived).problems)
