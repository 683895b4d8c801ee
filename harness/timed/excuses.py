"""Failures of a submission that are not its fault: what others did to the machine meanwhile.

Asked at the levels that keep a sandbox from the machine's services and from its disk; at others a
submission could do the same itself, to get an evaluation for free.
"""

from harness.errors import Code, JudgeError, SubmissionError
from harness.timed.others import EXCUSED_SHARE


def busy(error: SubmissionError, others: float | None) -> JudgeError | None:
    """What took too long while others had much of the machine's cores is ours; None for all else.

    Args:
        others: what other programs had of the cores, 0 to 1; None: it is not known.
    """
    if error.code is not Code.TIMED_OUT or others is None or others <= EXCUSED_SHARE:
        return None
    return JudgeError(
        Code.MACHINE_BUSY,
        f"{error.message}; but other programs had {others:.0%} of this machine's cores meanwhile: "
        "end them, and try again",
    )


def disk_full(error: SubmissionError, room: int | None, allowed: int) -> JudgeError | None:
    """What could not be written where the promised room was gone is ours; None for all else.

    The room was there before the sandbox started, and the outbox is all that it can write to that disk.

    Args:
        room: bytes that the disk has for the outbox of a sandbox that has ended; None: not known.
        allowed: bytes that it may hold.
    """
    if error.code is not Code.OPENING_FAILED or room is None or room >= allowed:
        return None
    return JudgeError(
        Code.DISK_FULL,
        f"{error.message}; but the disk of the work folder has {room / 2**20:.0f} MiB of the "
        f"{allowed / 2**20:.0f} that the state may need: others have filled it. Make room, and try again",
        error.detail,
    )
