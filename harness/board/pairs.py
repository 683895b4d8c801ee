"""Is one train file faster than another? Both run in turns on the same machine until that is decided.

Two scores from two evaluations may be hours and machines apart. A pair is two runs, one after the other,
so what slows the machine slows both; who goes first changes from pair to pair (ABBA), so a machine that
gets warmer favours nobody. What is compared is the achieved speed, MFU times the peak: a peak that is
measured anew for each run would add its noise to the ratio.
"""

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from harness.benchmark.rules import Together
from harness.board.paired import Interval, interval, looks
from harness.board.rule import ScoringRule
from harness.errors import Code, JudgeError, Verdict
from harness.records import Record
from harness.result import EvaluationResult, RunResult
from harness.verify.findings import Finding
from harness.verify.together import judge_together

Side = Literal["contender", "leader"]
Outcome = Literal["faster", "slower", "not_enough", "undecided", "rejected"]
#: Judges the file of that side once, with one timed run. May raise NoResultError.
Judge = Callable[[Side], EvaluationResult]

SIDES: tuple[Side, Side] = ("contender", "leader")
#: Our own failures in one comparison, until we give up.
MAX_ERRORS = 3


class NoResultError(Exception):
    """The judge broke down and left no result: our failure."""


class Plan(Record):
    """How long to look, and how sure to be."""

    pairs: int = Field(default=10, ge=1, le=1_000, description="the most that are run")
    confidence: float = Field(
        default=0.95, ge=0.5, lt=1, description="one-sided, over all looks together"
    )
    enough: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="stop once the contender is surely not that much faster; 0.01 is 1 %",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the bootstrap")
    together: Together = Field(
        default=Together(), description="what all runs of a side have to meet together"
    )


class Pair(Record):
    """Two accepted runs, one after the other."""

    first: Side = Field(description="who ran first")
    contender_mfu: float
    leader_mfu: float
    contender_tflops: float = Field(description="achieved, of one device")
    leader_tflops: float
    ratio: float = Field(description="contender's over leader's achieved TFLOP/s")


class Comparison(Record):
    """What came of it. Without a decision there is an interval still, and it holds what it says."""

    contender: str = Field(description="SHA-256 of the file; empty if it was not run")
    leader: str = Field(description="SHA-256 of the file; empty if it was not run")
    plan: Plan
    pairs: tuple[Pair, ...]
    outcome: Outcome = Field(
        description="faster, slower: shown; not_enough: surely not as much faster as the plan asks for; "
        "undecided: the budget is spent; rejected: one of the two did not do the training"
    )
    ratio: float | None = Field(description="geometric mean over the pairs; null without any")
    low: float = Field(description="what the ratio is at least; 0: nothing is known")
    high: float = Field(description="what the ratio is at most; infinite: nothing is known")
    alpha: float = Field(description="chance, for each of the two bounds, that it is wrong")
    rejected: Side | None = Field(default=None, description="whose run was rejected")
    code: Code = Field(default=Code.OK, description="why")
    message: str = Field(default="", description="why, for the author")
    errors: int = Field(default=0, description="runs that failed by our fault and were made again")

    @property
    def faster(self) -> bool:
        """Whether the contender was shown to be faster."""
        return self.outcome == "faster"


def plan_of(rule: ScoringRule, together: Together) -> Plan:
    """How a season compares a contender with its leader; its rule asks for one pair at least.

    Args:
        rule: of the season.
        together: of the benchmark.
    """
    return Plan(
        pairs=rule.pairs,
        confidence=rule.confidence,
        enough=rule.base_threshold,
        seed=rule.seed,
        together=together,
    )


def compare(
    judge: Judge, plan: Plan, seen: Callable[[Pair], None] = lambda pair: None
) -> Comparison:
    """Run pairs until the interval decides, one file is rejected, or the budget is spent.

    Each run is judged for itself. What its runs say together is asked before their speed counts: else
    whoever computes exactly in an evaluation could do with less here.

    Args:
        judge: called for one run at a time.
        plan: fixed before the first pair.
        seen: told of every pair.

    Raises:
        JudgeError: MAX_ERRORS runs failed by our fault.
        InputError: as `judge` does.
    """
    turns = _Turns(judge)
    pairs: list[Pair] = []
    runs: dict[Side, list[RunResult]] = {side: [] for side in SIDES}
    outcome: Outcome = "undecided"
    while len(pairs) < plan.pairs and outcome == "undecided":
        order = SIDES if len(pairs) % 2 == 0 else SIDES[::-1]
        results = {}
        for side in order:
            results[side] = turns.take(side)
            if results[side].verdict is Verdict.REJECTED:
                return _comparison(turns, plan, pairs, side, results[side])
            runs[side] += results[side].runs
        pairs.append(_pair(order[0], results["contender"], results["leader"]))
        seen(pairs[-1])
        outcome, _, _ = decide([pair.ratio for pair in pairs], plan)
    for side in SIDES:
        found = judge_together(runs[side], plan.together)
        if found:
            return _comparison(turns, plan, pairs, side, found[0][1])
    return _comparison(turns, plan, pairs)


def decide(ratios: list[float], plan: Plan) -> tuple[Outcome, Interval, float]:
    """What these pairs say: the outcome so far, the interval, and the alpha of each of its bounds.

    Between looks, and where there are too few pairs, it is undecided. The interval is then that of the
    alpha of the next look, for somebody who watches; it decides nothing.
    """
    planned = looks(plan.pairs, plan.confidence)
    due = [look for look in planned if look.pairs >= len(ratios)]
    alpha = due[0].alpha if due else 1 - plan.confidence
    if not ratios:
        return "undecided", Interval(1.0, 0.0, float("inf")), alpha
    found = interval(ratios, alpha, plan.seed)
    if not any(look.pairs == len(ratios) for look in planned):
        return "undecided", found, alpha
    if found.low > 1:
        return "faster", found, alpha
    if found.high < 1:
        return "slower", found, alpha
    if found.high < 1 + plan.enough:
        return "not_enough", found, alpha
    return "undecided", found, alpha


class _Turns:
    """Takes turns; one that failed by our fault is taken again."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.errors = 0
        self.sha256: dict[Side, str] = dict.fromkeys(SIDES, "")

    def take(self, side: Side) -> EvaluationResult:
        """A result that is accepted or rejected. Raises JudgeError."""
        while True:
            try:
                result = self._judge(side)
            except NoResultError as broke:
                self._bear(Code.INTERNAL, str(broke))
                continue
            self.sha256[side] = result.submission.sha256
            if result.verdict is not Verdict.ERROR:
                return result
            self._bear(result.code, result.message, result.detail)

    def _bear(self, code: Code, message: str, detail: str = "") -> None:
        """One more failure of ours. Raises JudgeError where they are too many."""
        self.errors += 1
        if self.errors >= MAX_ERRORS:
            raise JudgeError(
                code,
                f"{self.errors} runs of the comparison failed by the judge's fault, the last "
                f"one with: {message}",
                detail,
            )


def _comparison(
    turns: _Turns,
    plan: Plan,
    pairs: list[Pair],
    rejected: Side | None = None,
    why: EvaluationResult | Finding | None = None,
) -> Comparison:
    """The document; `why` is for the side that was rejected."""
    outcome, found, alpha = decide([pair.ratio for pair in pairs], plan)
    return Comparison(
        contender=turns.sha256["contender"],
        leader=turns.sha256["leader"],
        plan=plan,
        pairs=tuple(pairs),
        outcome=outcome if why is None else "rejected",
        ratio=found.ratio if pairs else None,
        low=found.low,
        high=found.high,
        alpha=alpha,
        rejected=rejected,
        code=Code.OK if why is None else why.code,
        message="" if why is None else why.message,
        errors=turns.errors,
    )


def _pair(first: Side, contender: EvaluationResult, leader: EvaluationResult) -> Pair:
    mine, theirs = contender.score, leader.score
    if mine is None or theirs is None or min(mine.mfu, theirs.mfu) <= 0:
        raise JudgeError(Code.INTERNAL, "an accepted run has no MFU")
    achieved = mine.mfu * mine.peak_tflops, theirs.mfu * theirs.peak_tflops
    return Pair(
        first=first,
        contender_mfu=mine.mfu,
        leader_mfu=theirs.mfu,
        contender_tflops=achieved[0],
        leader_tflops=achieved[1],
        ratio=achieved[0] / achieved[1],
    )
