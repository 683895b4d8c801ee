"""What is read from the store: submissions, queue, authors; and what is hidden is hidden."""

import random

import pytest

from harness.board.history import events_after, history_of
from harness.board.leases import Leases
from harness.board.organise import close_season, invalidate, release
from harness.board.people import author_view, workers_view
from harness.board.queue import give_back, take
from harness.board.rule import ScoringRule
from harness.board.states import EvaluationState, SubmissionState
from harness.board.store import Store
from harness.board.submit import cancel
from harness.board.views import (
    earlier_of_author,
    result_document,
    season_view,
    seasons_view,
    source_text,
    submission_lines,
    submission_view,
)
from harness.board.waiting import position_of, queue_length, queue_view
from harness.errors import Code, InputError, Verdict
from tests.board.examples import (
    ELSEWHERE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)


def source(store: Store, number: int, viewer: str | None = None, later: float = 0.0) -> str | None:
    with store.read() as session:
        return source_text(session, number, store.now() + later, viewer)


def test_a_submission_is_told_whole(store: Store) -> None:
    board_with(store, "alice")
    number = hand_in(store, "alice", note="first try")
    judge_next(store, accepted_result((0.40, 0.42)))
    with store.read() as session:
        view = submission_view(session, number, store.now())
    assert (view.author, view.season, view.note) == ("alice", "autumn", "first try")
    assert (view.state, view.verdict) == (SubmissionState.JUDGED, Verdict.ACCEPTED)
    [evaluation] = view.evaluations
    assert evaluation.state is EvaluationState.FINISHED
    assert (evaluation.run_mfus, evaluation.code) == ((0.40, 0.42), Code.OK)
    assert [line.kind for line in view.history] == [
        "submitted", "evaluation_queued", "evaluation_started", "evaluation_finished",
    ]  # fmt: skip
    assert view.history[-1].text == "evaluation 1 finished after 33 s: accepted"


def test_every_change_stands_in_the_history(store: Store) -> None:
    board_with(store, "alice")
    number = hand_in(store, "alice")
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    give_back(store, taken, "the power \x1b[31mfailed")
    judge_next(store, accepted_result((1.2,)))
    invalidate(store, number, "it slept")
    release(store, number, "it did not")
    with store.read() as session:
        told = [line.text for line in history_of(session, number)]
        view = submission_view(session, number, store.now())
    assert "evaluation 1 given back, it waits again: the power ?[31mfailed" in told
    assert told[-2:] == [
        "invalidated by the organiser: it slept",
        "released by the organiser: it did not",
    ]
    assert len(view.alarms) == 1
    assert "1.200" in view.alarms[0]


@pytest.mark.parametrize("number", [0, -1, 2, 2**63, 10**30])
def test_what_is_not_there_is_unknown(store: Store, number: int) -> None:
    board_with(store, "alice")
    hand_in(store, "alice")
    with store.read() as session:
        for ask in (submission_view, source_text):
            with pytest.raises(InputError) as refused:
                ask(session, number, 0.0)
            assert refused.value.code is Code.UNKNOWN_ID
        with pytest.raises(InputError):
            result_document(session, number)
        with pytest.raises(InputError):
            season_view(session, "winter")
        with pytest.raises(InputError):
            author_view(session, "nobody")


def test_a_source_is_public_once_judged_and_its_authors_always(store: Store) -> None:
    board_with(store, "alice", "bob")
    hand_in(store, "alice")
    text = train_file(1).decode()
    assert source(store, 1) is None
    assert source(store, 1, "bob") is None
    assert source(store, 1, "alice") == text
    judge_next(store, error_result())  # our failure is no judgement
    assert source(store, 1) is None
    judge_next(store, rejected_result())
    assert source(store, 1) == text


def test_by_the_other_rule_it_is_public_when_the_season_is_over(store: Store) -> None:
    board_with(store, "alice", rule=ScoringRule(pairs=0, source_visible="season_end"))
    hand_in(store, "alice", 1)
    hand_in(store, "alice", 2)
    judge_next(store, accepted_result())
    assert source(store, 1) is None
    close_season(store, "autumn")
    assert source(store, 1) == train_file(1).decode()
    assert source(store, 2) is None  # never judged


def test_the_result_is_the_one_that_was_written(store: Store) -> None:
    board_with(store, "alice")
    hand_in(store, "alice")
    with store.read() as session:
        assert result_document(session, 1) is None
    result = rejected_result()
    judge_next(store, result)
    with store.read() as session:
        assert result_document(session, 1) == result


def test_the_earlier_one_is_the_authors_own_and_another_file(store: Store) -> None:
    board_with(store, "alice", "bob")
    for author, number in (("alice", 1), ("bob", 2), ("alice", 3), ("alice", 3)):
        hand_in(store, author, number)
    with store.read() as session:
        assert [earlier_of_author(session, number) for number in (1, 2, 3, 4)] == [
            None, None, 1, 1,
        ]  # fmt: skip


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_turns_are_told_as_they_are_taken(store: Store, seed: int) -> None:
    board_with(store, "alice", "bob", "carol", rule=ScoringRule(pairs=0, submissions_per_day=100))
    dice = random.Random(seed)
    for number in range(12):
        hand_in(store, dice.choice(["alice", "alice", "alice", "bob", "carol"]), number)
    for _ in range(3):
        judge_next(store, accepted_result())
    with store.read() as session:
        told = [entry.submission for entry in queue_view(session)]
        assert [entry.position for entry in queue_view(session)] == list(range(1, 10))
        assert queue_length(session) == 9
        assert [position_of(session, number) for number in told] == list(range(1, 10))
        assert [entry.submission for entry in queue_view(session, 2)] == told[:2]
        second = queue_view(session, 4, 4)
        assert [entry.submission for entry in second] == told[4:8]
        assert [entry.position for entry in second] == [5, 6, 7, 8]
        assert queue_view(session, 4, 12) == ()
    assert [judge_next(store, accepted_result()) for _ in told] == told


def test_what_runs_is_before_all_turns(store: Store) -> None:
    board_with(store, "alice")
    hand_in(store, "alice", 1)
    hand_in(store, "alice", 2)
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    Leases(store).renew(taken, "loading\x1b[2J")
    with store.read() as session:
        first, second = queue_view(session)
        assert (first.position, first.submission) == (0, 1)
        assert first.progress == "loading\N{REPLACEMENT CHARACTER}[2J"
        assert (second.position, second.submission) == (1, 2)
        assert position_of(session, 1) is None


def test_two_benchmarks_are_two_lines(store: Store) -> None:
    from harness.board.organise import SeasonPlan, open_season
    from harness.board.submit import Handed, submit

    board_with(store, "alice")
    open_season(store, SeasonPlan("other", "0" * 64, "tiny", 2, "", ScoringRule()))
    for season in ("autumn", "other", "autumn"):
        submit(store, Handed("alice", "a.py", train_file(1), season=season))
    with store.read() as session:
        places = {entry.submission: entry.position for entry in queue_view(session)}
        assert places == {number: position_of(session, number) for number in (1, 2, 3)}
    assert places == {1: 1, 3: 2, 2: 1}


def test_an_author_is_counted_over_everything_and_shown_by_the_page(store: Store) -> None:
    board_with(store, "alice", "bob")
    for number in range(4):
        hand_in(store, "alice", number)
    hand_in(store, "bob", 9)
    judge_next(store, accepted_result())
    judge_next(store, rejected_result())
    judge_next(store, rejected_result())
    cancel(store, 4)
    with store.read() as session:
        view = author_view(session, "alice", offset=1, limit=2)
        assert [line.id for line in view.submissions] == [3, 2]
        assert (view.total, view.waiting) == (4, 1)
        assert view.accepted + view.rejected == 2
        assert author_view(session, "alice", offset=2**80).submissions == ()
        assert submission_lines(session, [2, 77]).keys() == {2}


def test_a_worker_is_alive_while_it_is_heard_from(store: Store) -> None:
    Leases(store).seen(ELSEWHERE, "waiting")
    with store.read() as session:
        assert [worker.alive for worker in workers_view(session, store.now())] == [True]
        assert [worker.alive for worker in workers_view(session, store.now() + 60)] == [False]


def test_a_season_knows_when_it_runs(store: Store) -> None:
    board_with(store, season="autumn")
    board_with(store, season="winter")
    with store.read() as session:
        newest, oldest = seasons_view(session)
    assert (newest.name, oldest.name) == ("winter", "autumn")
    now = store.now()
    assert newest.runs(now)
    assert not newest.runs(now - 1_000)
    ending = newest.model_copy(update={"ends_at": now + 5})
    assert (ending.runs(now), ending.runs(now + 5), ending.over(now + 5)) == (True, False, True)


def test_events_for_everybody_name_no_key(store: Store) -> None:
    board_with(store, "alice")
    hand_in(store, "alice")
    with store.read() as session:
        lines = events_after(session, 0, 100)
        rest = events_after(session, lines[1].id, 1)
    assert [line.kind for line in lines] == [
        "season_opened", "author_added", "submitted", "evaluation_queued",
    ]  # fmt: skip
    assert rest == lines[2:3]
