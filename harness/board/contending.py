"""A worker makes a comparison: pair after pair, to what is written down of it, or until it lets it go."""

from collections.abc import Callable
from typing import Protocol

from harness.benchmark.rules import Together
from harness.board import comparing
from harness.board.judge_process import Judged
from harness.board.pairs import NoResultError, Pair, Side, compare, plan_of
from harness.board.patience import Patience
from harness.board.queue import LeaseLostError
from harness.board.store import Store
from harness.errors import Code, JudgeError
from harness.phases import OnProgress
from harness.result import EvaluationResult


class RunJudge(Protocol):
    """Has a file, by name and source, judged; tells `renew_lease` what the judge says meanwhile."""

    def __call__(
        self,
        file: tuple[str, bytes],
        world_size: int,
        options: tuple[str, ...],
        renew_lease: Callable[[str], None],
    ) -> Judged: ...


class _AskedToEndError(Exception):
    """The worker has to end now: that is nobody's failure."""


def contend(
    store: Store,
    claimed: comparing.Claimed,
    together: Together,
    run_judge: RunJudge,
    patience: Patience,
    say: OnProgress,
) -> bool:
    """Make a comparison; False where it failed by our fault, and is for later.

    Args:
        store: where it is written down.
        claimed: the comparison.
        together: of the benchmark.
        run_judge: judges the file of a side.
        patience: with the store.
        say: told how it goes.

    Whatever is raised, the comparison is owed still, and let go if the store can be reached.

    Raises:
        InputError: this machine cannot judge this benchmark.
        OSError: as `run_judge` does.
        JudgeError: STORE_FAILED: the store did for too long.
    """
    name = f"submission {claimed.contender} against {claimed.leader}"
    say(f"comparing {name}")
    pairs: list[Pair] = []

    def judge(side: Side) -> EvaluationResult:
        judged = run_judge(
            claimed.files[side],
            claimed.world_size,
            ("--runs", "1"),
            lambda said: comparing.renew(store, claimed, len(pairs)),
        )
        if judged.result is not None:
            return judged.result
        judged.check_machine()
        if judged.stopped:
            raise _AskedToEndError(judged.cause)
        raise NoResultError(judged.cause)

    try:
        plan = plan_of(claimed.rule, together)
        found = compare(judge, plan, pairs.append)
        # They took many times the minutes of an evaluation: write them down even if the store fails.
        patience.insist(lambda: comparing.finish(store, claimed, found))
    except LeaseLostError as lost:
        say(f"{lost}; what was found is not kept")
        return True
    except _AskedToEndError as asked:
        comparing.let_go(store, claimed)
        say(f"comparing {name}: not now: {asked}")
        return True
    except JudgeError as error:
        if error.code is Code.STORE_FAILED:
            raise
        cause = error.message
        patience.insist(lambda: comparing.failed(store, claimed, cause))
        say(f"comparing {name}: not now: {cause}")
        return False
    except Exception:
        comparing.let_go(store, claimed)
        raise
    say(f"comparing {name}: {found.outcome.replace('_', ' ')}")
    return True
