"""A judge has ended: its result is written down, or what it judged is given back with the cause."""

from harness.board.judge_process import Judged
from harness.board.outcome import finish
from harness.board.queue import Taken, fail, give_back
from harness.board.store import Store
from harness.errors import InputError


def settle(store: Store, taken: Taken, judged: Judged, seconds: float) -> str:
    """Write down what came of an evaluation; gives that in words. Raises LeaseLostError.

    Args:
        store: where.
        taken: the evaluation.
        judged: what came of it.
        seconds: that it took.
    """
    if judged.result is not None:
        finish(store, taken, judged.result, seconds)
        return f"{judged.result.verdict} ({judged.result.code})"
    # Only a judge that broke down counts as a try: neither our end nor a wrong machine does.
    no_try = judged.stopped or judged.status == InputError.exit_status
    (give_back if no_try else fail)(store, taken, judged.cause)
    return f"given back: {judged.cause}"
