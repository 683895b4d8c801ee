"""What a result changes: another try, a hold, an alarm, or nothing more."""

import math

import pytest

from harness.board.maintenance import check
from harness.board.queue import (
    take,
)
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Handed, submit
from harness.errors import Code
from harness.result import EvaluationResult
from harness.verify.findings import Severity
from tests.board.conftest import Raw
from tests.board.examples import (
    ELSEWHERE,
    HARDWARE,
    HPARAMS_SHA256,
    PEAK_TFLOPS,
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)


def test_an_accepted_result_is_kept_whole_beside_its_columns(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, accepted_result((0.4, 0.5)))
    (row,) = raw(
        "SELECT state, verdict, code, isolation, hardware, failed_runs, seconds FROM evaluations"
    )
    assert row == ("finished", "accepted", "ok", "docker", HARDWARE, 0, 33.0)
    # 0.4 and 0.5 as little-endian doubles.
    ((mfus,),) = raw("SELECT run_mfus FROM evaluations")
    assert bytes(mfus).hex() == "9a9999999999d93f" + "000000000000e03f"
    assert raw("SELECT state, verdict FROM submissions") == [("judged", "accepted")]
    assert len(raw("SELECT sha256 FROM documents")) == 1
    assert check(store).problems == ()


def test_our_own_failure_is_tried_again_up_to_the_rule_s_limit(store: Store, raw: Raw) -> None:
    board_with(store, "ada", rule=ScoringRule(max_attempts=2))
    hand_in(store, "ada")
    judge_next(store, error_result(message="a cable was pulled"))
    assert raw("SELECT state, verdict FROM submissions") == [("queued", "error")]
    assert raw("SELECT why FROM evaluations WHERE id = 2") == [
        ("the judge failed: a cable was pulled",)
    ]
    judge_next(store, error_result(message="and another"))
    assert raw("SELECT state, state_why FROM submissions") == [
        ("failed", "the judge failed 2 times, last: and another")
    ]
    assert raw("SELECT state FROM evaluations ORDER BY id") == [("finished",), ("finished",)]
    assert take(store, ELSEWHERE, HPARAMS_SHA256) is None
    assert check(store).problems == ()


def test_a_verdict_after_our_own_failure_is_what_counts(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, error_result())
    judge_next(store, accepted_result())
    assert raw("SELECT state, verdict FROM submissions") == [("judged", "accepted")]


def test_a_rejected_submission_is_never_tried_again(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, rejected_result())
    assert take(store, ELSEWHERE, HPARAMS_SHA256) is None
    assert raw("SELECT state, verdict FROM submissions") == [("judged", "rejected")]
    assert raw("SELECT failed_runs, run_mfus FROM evaluations") == [(1, b"")]


@pytest.mark.parametrize(("rejects", "failed"), [((), 1), ((1,), 1), ((0, 2), 2), ((0, 1, 2), 3)])
def test_runs_count_as_failed_that_the_submission_failed(
    store: Store, raw: Raw, rejects: tuple[int, ...], failed: int
) -> None:
    """Of three runs; where none has such a finding the rejection itself is one."""
    board_with(store, "ada")
    hand_in(store, "ada")
    (wrong,) = rejected_result().runs
    hint = wrong.findings[0].model_copy(update={"severity": Severity.NOTE})
    good = wrong.model_copy(update={"findings": (hint,)})
    runs = tuple(wrong if number in rejects else good for number in range(3))
    judge_next(store, rejected_result().model_copy(update={"runs": runs}))
    assert raw("SELECT failed_runs FROM evaluations") == [(failed,)]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (Code.UPDATE_MISMATCH, "held"),
        (Code.LOSS_MISMATCH, "held"),
        (Code.STATE_INVALID, "held"),
        (Code.TIMED_OUT, "judged"),
        (Code.IMPORT_FAILED, "judged"),
    ],
)
def test_the_same_program_that_was_rejected_for_its_numbers_waits_for_the_organiser(
    store: Store, raw: Raw, code: Code, state: str
) -> None:
    board_with(store, "ada", "bob")
    hand_in(store, "ada", 1)
    judge_next(store, rejected_result(code))
    # It makes no difference who hands it in, or what its comments say.
    submit(store, Handed("bob", "mine.py", b"# all mine\n" + train_file(1)))
    hand_in(store, "ada", 2)
    judge_next(store, accepted_result())
    judge_next(store, accepted_result())
    assert raw("SELECT state FROM submissions WHERE id > 1 ORDER BY id") == [(state,), ("judged",)]
    assert check(store).problems == ()


def test_what_was_rejected_in_another_season_is_not_held_against_it(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, rejected_result())
    board_with(store, season="winter")  # with other tolerances, perhaps
    hand_in(store, "ada", season="winter")
    judge_next(store, accepted_result())
    assert raw("SELECT state FROM submissions WHERE id = 2") == [("judged",)]


def alarms(raw: Raw) -> list[str]:
    return [body for (body,) in raw("SELECT body FROM events WHERE kind = 'alarm_raised'")]


def test_what_could_not_be_ended_is_an_alarm(store: Store, raw: Raw) -> None:
    """Something of it may still keep that machine busy."""
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, rejected_result(code=Code.NOT_ENDED))
    (alarm,) = alarms(raw)
    assert "could not be ended: look at that machine" in alarm


def test_it_is_one_too_where_the_submission_failed_for_another_reason(
    store: Store, raw: Raw
) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, rejected_result().model_copy(update={"not_ended": True}))
    assert len(alarms(raw)) == 1


@pytest.mark.parametrize(
    ("mfu", "alarmed"), [(0.99, False), (1.0, False), (1.01, True), (math.nan, True)]
)
def test_more_than_the_peak_is_an_alarm(store: Store, raw: Raw, mfu: float, alarmed: bool) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, changed(accepted_result((0.5, 0.4)), mfu))
    assert bool(alarms(raw)) is alarmed


def changed(result: EvaluationResult, mfu: float) -> EvaluationResult:
    """With another MFU of its second run, whose other figures stay."""
    runs = (result.runs[0], result.runs[1].model_copy(update={"mfu_active_params": mfu}))
    return result.model_copy(update={"runs": runs})


def test_a_season_s_peak_is_that_of_the_season(store: Store, raw: Raw) -> None:
    # Whatever an evaluation has measured: 0.4 of the one is 0.8 of half of it.
    board_with(store, "ada", rule=ScoringRule(peak_tflops=PEAK_TFLOPS / 2))
    hand_in(store, "ada")
    judge_next(store, accepted_result((0.4, 0.6)))
    ((mfus,),) = raw("SELECT run_mfus FROM evaluations")
    assert bytes(mfus).hex()[:16] == "9a9999999999e93f"  # 0.8
    assert "1.200" in alarms(raw)[0]


def test_any_message_can_be_kept(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, rejected_result(message="KeyError: 'a\0b\x1b[2J'"))
    assert raw("SELECT message FROM evaluations") == [
        ("KeyError: 'a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[2J'",)
    ]
    assert check(store).problems == ()
