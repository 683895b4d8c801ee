"""Handing in: what is taken, what is refused at once and leaves nothing, how often, and taking it back."""

from collections.abc import Callable
from functools import partial

import pytest

from harness.board.maintenance import check
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.queue import take
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Handed, cancel, check_source, in_words, submit
from harness.errors import Code, InputError, SubmissionError, TrainjudgeError
from harness.submission.strategy import Strategy
from tests.board.conftest import Raw
from tests.board.examples import (
    ELSEWHERE,
    HARDWARE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)


def refused(what: Callable[[], object]) -> TrainjudgeError:
    with pytest.raises(TrainjudgeError) as caught:
        what()
    return caught.value


def test_what_was_handed_in_is_kept_and_waits(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    source = train_file(7)
    assert submit(store, Handed("ada", "fast.py", source, "fused experts")) == 1
    (row,) = raw(
        "SELECT season_id, author_id, file_name, note, strategy, world_size, state, verdict"
        " FROM submissions"
    )
    assert row == (1, 1, "fast.py", "fused experts", "dp 2", 2, "queued", None)
    assert [bytes(content) for (content,) in raw("SELECT content FROM sources")] == [source]
    assert raw("SELECT id, submission_id, state, why FROM evaluations") == [
        (1, 1, "queued", "submitted")
    ]
    kinds = [kind for (kind,) in raw("SELECT kind FROM events ORDER BY id")]
    assert kinds[-2:] == ["submitted", "evaluation_queued"]
    assert raw("SELECT DISTINCT submission FROM events WHERE id > 3") == [(1,)]
    assert check(store).problems == ()


def test_the_same_source_is_kept_once_and_judged_each_time(store: Store, raw: Raw) -> None:
    board_with(store, "ada", "bob")
    assert [hand_in(store, author) for author in ("ada", "bob", "ada")] == [1, 2, 3]
    assert len(raw("SELECT sha256 FROM sources")) == 1
    assert len(raw("SELECT id FROM evaluations")) == 3


def test_the_program_is_the_same_if_only_a_comment_differs(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    submit(store, Handed("ada", "a.py", train_file(1)))
    submit(store, Handed("ada", "b.py", b"# mine alone\n" + train_file(1)))
    submit(store, Handed("ada", "c.py", train_file(2)))
    programs = [program for (program,) in raw("SELECT program FROM submissions ORDER BY id")]
    assert programs[0] == programs[1] != programs[2]


INNER = (
    "def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):\n    pass\n"
)
WORLD = "def get_strategy():\n    return {'dp_size': 2}\n"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"", Code.FILE_UNREADABLE),
        (b" \n\t\n", Code.FILE_UNREADABLE),
        (b"x = 1 #" + b"x" * 2**20, Code.FILE_TOO_LARGE),
        (b"\xff\xfe\x00binary", Code.FILE_UNREADABLE),
        (INNER.encode() + b"# \xe4\n", Code.FILE_UNREADABLE),
        (b"\x7fELF\0\0\0", Code.FILE_UNREADABLE),
        (b"def inner_steps(:", Code.SYNTAX_ERROR),
        (b"(" * 100_000, Code.SYNTAX_ERROR),
        (b"x = 1", Code.NO_INNER_STEPS),
        (b"def inner_steps(model): pass", Code.BAD_SIGNATURE),
        (f"{INNER}def get_strategy():\n    return f()\n".encode(), Code.STRATEGY_NOT_LITERAL),
        (f"{INNER}def get_strategy():\n    return {{'xp': 2}}\n".encode(), Code.STRATEGY_INVALID),
        (
            f"{INNER}def get_strategy():\n    return {{'dp_size': 4}}\n".encode(),
            Code.STRATEGY_WORLD_MISMATCH,
        ),
    ],
)
def test_a_file_that_cannot_be_run_is_refused_and_leaves_nothing(
    store: Store, raw: Raw, source: bytes, code: Code
) -> None:
    board_with(store, "ada")
    before = store.last_event()
    with pytest.raises(SubmissionError) as caught:
        submit(store, Handed("ada", "train.py", source))
    assert caught.value.code is code
    assert store.last_event() == before
    assert raw("SELECT * FROM sources") == []


def test_a_file_of_exactly_the_limit_is_looked_at() -> None:
    check_source(b"#" * 2**20)
    assert refused(lambda: check_source(b"#" * (2**20 + 1))).code is Code.FILE_TOO_LARGE


def test_where_in_the_file_it_is_not_utf_8_is_said() -> None:
    assert "byte 4" in refused(lambda: check_source(b"x = \xff")).message


def test_nothing_of_a_submission_is_a_path_or_moves_a_terminal(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hostile = "../../etc/\x1b[2J\0\r\nname.py" + "x" * 10_000
    submit(store, Handed("ada", hostile, train_file(), "a\x1b]0;b\x07\0" + "w" * 10_000))
    ((name, note),) = raw("SELECT file_name, note FROM submissions")
    assert name.isprintable()
    assert name.startswith("../../etc/?[2J???name.py")
    assert len(name) <= 201
    assert len(note) == 500
    assert all(c.isprintable() or c == "\N{REPLACEMENT CHARACTER}" for c in note)
    assert check(store).problems == ()


@pytest.mark.parametrize("note", ["\ud800 lone", "\u202eright to left", "'; DROP TABLE events; --"])
def test_any_note_can_be_kept(store: Store, note: str) -> None:
    board_with(store, "ada")
    hand_in(store, "ada", note=note)
    assert check(store).problems == ()


def test_a_season_takes_files_only_while_it_lasts(store: Store) -> None:
    now = store.now()

    def open_(name: str, starts_at: float, ends_at: float) -> None:
        rule = ScoringRule()
        open_season(
            store, SeasonPlan(name, HPARAMS_SHA256, "b", 2, HARDWARE, rule, starts_at, ends_at)
        )

    open_("over", now - 100, now - 50)
    open_("now", now - 100, now + 1000)
    open_("later", now + 500, now + 1000)
    add_author(store, "ada")
    for name in ("over", "later"):
        refusal = refused(partial(submit, store, Handed("ada", "t.py", train_file(), season=name)))
        assert (refusal.code, name in refusal.message) == (Code.NOT_NOW, True)
    assert submit(store, Handed("ada", "t.py", train_file(), season="now")) == 1


def test_an_unknown_author_or_season_is_refused(store: Store) -> None:
    refusal = refused(lambda: hand_in(store, "ada"))
    assert refusal.code is Code.UNKNOWN_ID  # no season
    board_with(store, "ada")
    for handed in (
        Handed("bob", "t.py", train_file()),
        Handed("ada", "t.py", train_file(), season="winter"),
        Handed("<b>\x1b[0m", "t.py", train_file()),
    ):
        refusal = refused(partial(submit, store, handed))
        assert refusal.code is Code.UNKNOWN_ID
        assert refusal.message.isprintable()


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Strategy(), "one rank"),
        (Strategy(dp_size=8), "dp 8"),
        (Strategy(dp_size=2, ep_size=2), "dp 2, ep 2"),
        (Strategy(dp_size=4, ep_size=2, ep_borrows_dp=True), "dp 4, ep 2 (ep within dp)"),
    ],
)
def test_a_strategy_in_words(strategy: Strategy, words: str) -> None:
    assert in_words(strategy) == words


# --- how often -----------------------------------------------------------------------------------


def limited(store: Store, *authors: str) -> None:
    board_with(store, *authors, rule=ScoringRule(submissions_per_day=2, max_attempts=1, pairs=0))


def test_the_day_s_limit_is_of_one_author_and_counts_rejections(store: Store) -> None:
    limited(store, "ada", "bob")
    hand_in(store, "ada", 1)
    judge_next(store, rejected_result())
    hand_in(store, "ada", 2)
    judge_next(store, accepted_result())
    refusal = refused(lambda: hand_in(store, "ada", 3))
    assert isinstance(refusal, InputError)
    assert refusal.code is Code.RATE_LIMITED
    assert "24.0 hours" in refusal.message
    assert hand_in(store, "bob", 3) == 3


def test_after_a_day_an_author_may_hand_in_again(store: Store, raw: Raw) -> None:
    limited(store, "ada")
    hand_in(store, "ada", 1)
    hand_in(store, "ada", 2)
    raw("UPDATE submissions SET at = at - 72000 WHERE id = 1")  # 20 hours
    assert "4.0 hours" in refused(lambda: hand_in(store, "ada", 3)).message
    raw("UPDATE submissions SET at = at - 14460 WHERE id = 1")  # and four more, and a minute
    assert hand_in(store, "ada", 3) == 3
    assert refused(lambda: hand_in(store, "ada", 4)).code is Code.RATE_LIMITED


def test_what_we_failed_at_or_never_began_does_not_count(store: Store) -> None:
    limited(store, "ada")
    hand_in(store, "ada", 1)
    judge_next(store, error_result())
    cancel(store, hand_in(store, "ada", 2))
    hand_in(store, "ada", 3)
    hand_in(store, "ada", 4)
    assert refused(lambda: hand_in(store, "ada", 5)).code is Code.RATE_LIMITED


def test_what_was_taken_back_while_it_ran_counts(store: Store) -> None:
    """Else a machine could be kept busy for nothing, over and over."""
    limited(store, "ada")
    for number in (1, 2):
        submission = hand_in(store, "ada", number)
        assert take(store, ELSEWHERE, HPARAMS_SHA256) is not None
        cancel(store, submission)
    assert refused(lambda: hand_in(store, "ada", 3)).code is Code.RATE_LIMITED


def test_another_season_has_a_limit_of_its_own(store: Store) -> None:
    limited(store, "ada")
    for number in (1, 2):
        hand_in(store, "ada", number)
    open_season(store, SeasonPlan("winter", "d" * 64, "b", 2, HARDWARE, ScoringRule()))
    assert submit(store, Handed("ada", "t.py", train_file(), season="winter")) == 3


# --- taking it back ------------------------------------------------------------------------------


def test_what_waits_is_taken_back_and_never_judged(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    number = hand_in(store, "ada")
    cancel(store, number)
    assert raw("SELECT state FROM submissions") == [("cancelled",)]
    assert raw("SELECT state FROM evaluations") == [("cancelled",)]
    assert take(store, ELSEWHERE, HPARAMS_SHA256) is None
    assert refused(lambda: cancel(store, number)).code is Code.NOT_NOW
    assert check(store).problems == ()


def test_what_we_failed_at_can_be_taken_back(store: Store) -> None:
    limited(store, "ada")
    number = hand_in(store, "ada")
    judge_next(store, error_result())
    cancel(store, number)
    assert check(store).problems == ()


@pytest.mark.parametrize("result", [accepted_result(), rejected_result()])
def test_a_verdict_cannot_be_taken_back(store: Store, result: object) -> None:
    board_with(store, "ada")
    number = hand_in(store, "ada")
    judge_next(store, result)  # type: ignore[arg-type]
    assert refused(lambda: cancel(store, number)).code is Code.NOT_NOW


def test_nobody_takes_back_what_is_somebody_elses(store: Store, raw: Raw) -> None:
    board_with(store, "ada", "bob")
    number = hand_in(store, "ada")
    assert refused(lambda: cancel(store, number, "bob")).code is Code.UNKNOWN_ID
    assert refused(lambda: cancel(store, 17, "bob")).code is Code.UNKNOWN_ID
    assert raw("SELECT state FROM submissions") == [("queued",)]
    cancel(store, number, "ada")
    assert raw("SELECT state FROM submissions") == [("cancelled",)]
