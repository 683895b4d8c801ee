"""The paired comparison: its interval against tables and hand-made samples, and when it stops."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from harness.benchmark.rules import Together
from harness.board.paired import interval, looks, student_quantile
from harness.board.pairs import (
    Comparison,
    NoResultError,
    Plan,
    Side,
    compare,
    decide,
    plan_of,
)
from harness.board.rule import ScoringRule
from harness.errors import Code, JudgeError, Verdict
from harness.result import Benchmark, EvaluationResult, Metric, Score, SubmissionRecord
from tests.board.examples import accepted_result


def result(
    mfu: float, verdict: Verdict = Verdict.ACCEPTED, code: Code = Code.OK, peak: float = 100.0
) -> EvaluationResult:
    score = Score(
        mfu=mfu,
        basis="active_params",
        mfu_active_params=mfu,
        mfu_matmul_flops=mfu,
        tokens_per_second=1.0,
        total_params=1,
        active_params=1,
        flops_per_token=6.0,
        formula_version="1",
        peak_tflops=peak,
        peak_source="measured",
    )
    return EvaluationResult(
        verdict=verdict,
        code=code,
        message="as the test wants it",
        score=score if verdict is Verdict.ACCEPTED else None,
        benchmark=Benchmark(
            name="made-up", hparams_sha256="", model_sha256="", data_sha256="", calibrated=True
        ),
        submission=SubmissionRecord(name="train.py", sha256="", strategy={}),
        isolation="docker",
        world_size=1,
        machine=None,
        runs=(),
        phases=(),
        warnings=(),
        started_at="2026-01-01T00:00:00+00:00",
    )


REJECTED = result(0.0, Verdict.REJECTED, Code.UPDATE_MISMATCH)
OURS = result(0.0, Verdict.ERROR, Code.WORKER_FAILED)


class Machine:
    """Stands in for the judge: gives out results by side and notes who was asked. None: no result."""

    def __init__(
        self,
        contender: Sequence[EvaluationResult | None],
        leader: Sequence[EvaluationResult | None],
    ) -> None:
        self._results: dict[Side, Iterator[EvaluationResult | None]] = {
            "contender": iter(contender),
            "leader": iter(leader),
        }
        self.turns = ""

    def __call__(self, side: Side) -> EvaluationResult:
        self.turns += side[0]
        found = next(self._results[side])
        if found is None:
            raise NoResultError("the judge ended with signal 9 and no result: it says this last")
        record = found.submission.model_copy(update={"sha256": f"hash of the {side}"})
        return found.model_copy(update={"submission": record})


def machine(ratios: list[float]) -> Machine:
    """The leader has an MFU of 0.3 throughout."""
    return Machine([result(0.3 * ratio) for ratio in ratios], [result(0.3)] * len(ratios))


# --- statistics -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [
        (0.95, 1, 6.314),
        (0.975, 2, 4.303),
        (0.95, 3, 2.353),
        (0.995, 3, 5.841),
        (0.99, 4, 3.747),
        (0.95, 5, 2.015),
        (0.975, 9, 2.262),
        (0.975, 30, 2.042),
    ],
)
def test_students_quantiles_are_those_of_the_tables(
    probability: float, freedom: int, value: float
) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(value, abs=6e-4)


def test_the_looks_of_ten_pairs_share_five_per_cent_of_false_alarms() -> None:
    found = looks(10, 0.95)
    assert [look.pairs for look in found] == [5, 8, 10]
    assert [look.alpha for look in found] == pytest.approx([0.01, 0.015, 0.025])


@pytest.mark.parametrize(
    ("budget", "where"),
    [(1, []), (3, []), (4, [4]), (5, [4, 5]), (6, [4, 5, 6]), (100, [50, 75, 100])],
)
def test_there_are_few_looks_and_none_below_four_pairs(budget: int, where: list[int]) -> None:
    found = looks(budget, 0.9)
    assert [look.pairs for look in found] == where
    assert sum(look.alpha for look in found) == pytest.approx(0.1 if where else 0.0)


def test_the_interval_is_never_narrower_than_students() -> None:
    """Logs of -1, 0, 1, 2, 3 per cent: mean 1 %, standard error sqrt(2.5 / 5) = 0.7071 %."""
    ratios = np.exp([-0.01, 0.0, 0.01, 0.02, 0.03])
    found = interval(ratios, 0.05)
    assert found.ratio == pytest.approx(math.exp(0.01))
    half = 2.132 * 0.007071
    assert found.low <= math.exp(0.01 - half) + 1e-6
    assert found.high >= math.exp(0.01 + half) - 1e-6
    # Nor is it much wider here, where nothing is skewed.
    assert found.low > math.exp(0.01 - 2 * half)


def test_one_slow_run_widens_the_side_that_it_is_on() -> None:
    """Rare slow runs may be missing in few pairs: the mean may be further on their side than it seems.

    Six logs with a mean of -0.001 and a standard error of sqrt(0.004180 / 5 / 6) = 0.011804, of which
    Student's interval takes 2.015 to either side; the bootstrap alone takes less on the other side.
    """
    logs = np.array([0.010, 0.011, 0.012, 0.011, 0.010, -0.060])
    slow, fast = interval(np.exp(logs), 0.05), interval(np.exp(-logs), 0.05)
    half = 2.015 * 0.011804
    assert math.log(slow.low) < -0.001 - 1.5 * half
    assert math.log(slow.high) == pytest.approx(-0.001 + half, abs=1e-5)
    assert math.log(fast.high) > 0.001 + 1.5 * half
    assert math.log(fast.low) == pytest.approx(0.001 - half, abs=1e-5)


def test_fewer_than_four_pairs_say_nothing() -> None:
    found = interval([1.5, 1.5, 1.5], 0.05)
    assert (found.low, found.high) == (0.0, math.inf)
    assert found.ratio == pytest.approx(1.5)


def test_the_same_pairs_give_the_same_interval() -> None:
    ratios = [1.01, 1.02, 0.99, 1.03, 1.0]
    assert interval(ratios, 0.01, seed=3) == interval(ratios, 0.01, seed=3)
    assert interval(ratios, 0.01, seed=3) != interval(ratios, 0.01, seed=4)


def test_equal_programs_are_called_different_no_more_often_than_promised() -> None:
    """300 comparisons of noise alone: 15 false alarms on average are allowed, and 3.2 % were measured."""
    draw = np.random.default_rng(5)
    plan = Plan(pairs=10)
    alarms = 0
    for _ in range(300):
        ratios = np.exp(draw.normal(0, 0.01, 10)).tolist()
        outcomes = [decide(ratios[:pairs], plan)[0] for pairs in (5, 8, 10)]
        alarms += next((o for o in outcomes if o != "undecided"), "") == "faster"
    assert 1 <= alarms <= 20


# --- deciding ---------------------------------------------------------------------------------

CLEAR = [1.030, 1.032, 1.029, 1.031, 1.0305]


def test_nothing_is_decided_between_looks() -> None:
    plan = Plan(pairs=10)
    assert decide(CLEAR[:4], plan)[0] == "undecided"
    assert decide(CLEAR, plan)[0] == "faster"
    assert decide([*CLEAR, 1.03], plan)[0] == "undecided"


def test_a_contender_that_is_surely_not_fast_enough_is_sent_home() -> None:
    ratios = [1.002, 0.998, 1.001, 0.999, 1.000]
    assert decide(ratios, Plan(pairs=10, enough=0.01))[0] == "not_enough"
    assert decide(ratios, Plan(pairs=10, enough=0.0))[0] == "undecided"
    assert decide([1 / ratio for ratio in CLEAR], Plan(pairs=10, enough=0.01))[0] == "slower"


def test_shown_to_be_faster_is_enough_even_if_it_is_by_little() -> None:
    ratios = [1.0020, 1.0021, 1.0019, 1.0020, 1.0022]
    assert decide(ratios, Plan(pairs=10, enough=0.01))[0] == "faster"


# --- taking turns -----------------------------------------------------------------------------


def test_the_two_take_turns_and_change_who_goes_first() -> None:
    judge = machine([1.0, 1.1, 0.9, 1.05, 1.0, 0.95, 1.02, 0.99, 1.0, 1.01])
    found = compare(judge, Plan(pairs=10))
    assert judge.turns == "cllc" * 5
    assert [pair.first for pair in found.pairs[:3]] == ["contender", "leader", "contender"]
    assert found.outcome == "undecided" and not found.faster
    assert [pair.ratio for pair in found.pairs[:2]] == pytest.approx([1.0, 1.1])
    assert (found.contender, found.leader) == ("hash of the contender", "hash of the leader")


def test_it_stops_at_the_first_look_that_decides() -> None:
    judge = machine([*CLEAR, *CLEAR])
    told: list[float] = []
    found = compare(judge, Plan(pairs=10), lambda pair: told.append(pair.ratio))
    assert (found.outcome, found.faster, len(found.pairs)) == ("faster", True, 5)
    assert told == [pair.ratio for pair in found.pairs]
    assert found.ratio == pytest.approx(1.0305, abs=1e-4)
    assert 1.02 < found.low < 1.0305 < found.high < 1.04
    assert found.alpha == pytest.approx(0.01)


def test_a_peak_that_is_measured_anew_does_not_count() -> None:
    """The contender's MFU is 10 % lower only because its peak was measured 10 % higher."""
    judge = Machine([result(0.27, peak=110.0)] * 4, [result(0.297, peak=100.0)] * 4)
    found = compare(judge, Plan(pairs=4))
    assert [pair.ratio for pair in found.pairs] == pytest.approx([1.0] * 4)
    assert found.pairs[0].contender_tflops == pytest.approx(29.7)


@pytest.mark.parametrize(("side", "turns"), [("contender", "cllc"), ("leader", "cll")])
def test_a_rejected_run_ends_it_and_is_nobodys_victory(side: Side, turns: str) -> None:
    good = [result(0.3)]
    bad = [result(0.4), REJECTED]
    judge = Machine(bad, good * 2) if side == "contender" else Machine(good, bad)
    found = compare(judge, Plan(pairs=10))
    assert judge.turns == turns
    assert (found.outcome, found.rejected, found.code) == (
        "rejected",
        side,
        Code.UPDATE_MISMATCH,
    )
    assert len(found.pairs) == 1 and not found.faster


def runs_with(update_errors: list[float]) -> list[EvaluationResult]:
    """One run each, all accepted and of the same speed."""
    (run,) = accepted_result((0.3,)).runs
    made = []
    for value in update_errors:
        metric = Metric(name="update_error", measured=value, allowed=0.016)
        runs = (run.model_copy(update={"metrics": (metric,)}),)
        made.append(result(0.3).model_copy(update={"runs": runs}))
    return made


STRICT = Plan(pairs=4, together=Together(strict_update_error=0.001))
#: Each is within its tolerance, and one of four as near as float32 is; a flip turned the others.
NEAR = [0.01, 0.01, 0.0009, 0.01]
#: Something of it was left out every time.
FAR = [0.0011, 0.0011, 0.0012, 0.0011]


@pytest.mark.parametrize(
    ("contender", "leader", "rejected"),
    [(NEAR, NEAR, None), (FAR, NEAR, "contender"), (NEAR, FAR, "leader")],
)
def test_all_runs_of_a_side_together_are_held_to_the_strict_bound(
    contender: list[float], leader: list[float], rejected: Side | None
) -> None:
    found = compare(Machine(runs_with(contender), runs_with(leader)), STRICT)
    assert found.rejected == rejected
    assert len(found.pairs) == 4  # one alone says nothing: all were run
    if rejected is not None:
        assert (found.outcome, found.code) == ("rejected", Code.UPDATE_MISMATCH)
        assert "none of the 4 runs agrees with the reference" in found.message


def test_who_is_faster_beyond_the_strict_bound_is_not_called_faster() -> None:
    quick = [
        each.model_copy(update={"score": result(0.3 * ratio).score})
        for each, ratio in zip(runs_with(FAR), CLEAR, strict=False)
    ]
    for plan, outcome in ((STRICT, "rejected"), (Plan(pairs=4), "faster")):
        assert compare(Machine(quick, runs_with(NEAR)), plan).outcome == outcome


def test_a_rejection_in_the_first_run_leaves_no_pairs() -> None:
    found = compare(Machine([REJECTED], []), Plan())
    assert (found.pairs, found.ratio, found.low, found.high) == ((), None, 0.0, math.inf)
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_a_run_that_failed_by_our_fault_is_made_again_but_not_for_ever() -> None:
    judge = Machine(
        [OURS, result(0.3), OURS, result(0.3), result(0.3), result(0.3)], [result(0.3)] * 4
    )
    found = compare(judge, Plan(pairs=4))
    assert judge.turns == "ccllcc" + "cllc"
    assert (found.errors, len(found.pairs)) == (2, 4)
    with pytest.raises(JudgeError) as caught:
        compare(Machine([OURS] * 9, []), Plan())
    assert caught.value.code is Code.WORKER_FAILED
    assert "3 runs" in caught.value.message


def test_a_judge_that_broke_down_is_a_run_that_failed_by_our_fault() -> None:
    judge = Machine([None, *[result(0.3)] * 4], [result(0.3), OURS, *[result(0.3)] * 3])
    found = compare(judge, Plan(pairs=4))
    assert judge.turns == "cclllccllc"
    assert (found.errors, len(found.pairs)) == (2, 4)
    with pytest.raises(JudgeError, match=r"3 runs .* signal 9") as caught:
        compare(Machine([None, OURS, None, result(0.3)], []), Plan())
    assert caught.value.code is Code.INTERNAL


def test_a_budget_below_four_pairs_is_run_and_decides_nothing() -> None:
    found = compare(machine([2.0, 2.0]), Plan(pairs=2))
    assert (found.outcome, len(found.pairs), found.low) == ("undecided", 2, 0.0)


def test_a_season_asks_what_its_rule_says() -> None:
    rule = ScoringRule(pairs=7, confidence=0.9, base_threshold=0.02, seed=5)
    asked = Together(strict_update_error=0.001, means={"loss": 0.1}, fewest_runs=3)
    assert plan_of(rule, asked) == Plan(
        pairs=7, confidence=0.9, enough=0.02, seed=5, together=asked
    )
