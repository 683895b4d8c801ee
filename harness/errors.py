"""Who is to blame, and what to do: every failure that reaches a person has one of these codes.

Three exceptions, one for each guilty side. They carry a `Code`, a sentence for the person who has to
act, and an optional detail (a traceback tail from the sandbox, a command's output). Only the CLI
turns them into exit statuses.
"""

from enum import StrEnum
from typing import ClassVar, Self


class Verdict(StrEnum):
    """How an evaluation ended. `rejected` is the submission's fault, `error` is ours."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ERROR = "error"

    @property
    def exit_status(self) -> int:
        """Of the command that reports it."""
        return {Verdict.ACCEPTED: 0, Verdict.REJECTED: 1, Verdict.ERROR: 3}[self]


class Side(StrEnum):
    """Who has to act."""

    NOBODY = "nobody"
    SUBMISSION = "the submission"
    CALLER = "who ran the command"
    JUDGE = "the judge or its machine"


class Code(StrEnum):
    """Machine-readable reason of a verdict, with who is to blame and what it means."""

    side: Side
    meaning: str

    def __new__(cls, value: str, side: Side, meaning: str) -> Self:
        code = str.__new__(cls, value)
        code._value_ = value
        code.side = side
        code.meaning = meaning
        return code

    OK = "ok", Side.NOBODY, "accepted"

    # The file itself (seen without running it).
    FILE_UNREADABLE = (
        "file_unreadable",
        Side.SUBMISSION,
        "the file cannot be read, or is no regular file",
    )
    FILE_TOO_LARGE = "file_too_large", Side.SUBMISSION, "the file is over 1 MiB"
    SYNTAX_ERROR = "syntax_error", Side.SUBMISSION, "the file is not valid Python"
    NO_INNER_STEPS = "no_inner_steps", Side.SUBMISSION, "the file defines no inner_steps"
    BAD_SIGNATURE = (
        "bad_signature",
        Side.SUBMISSION,
        "inner_steps cannot be called as the contract says",
    )
    STRATEGY_NOT_LITERAL = (
        "strategy_not_literal",
        Side.SUBMISSION,
        "get_strategy computes what it returns",
    )
    STRATEGY_INVALID = (
        "strategy_invalid",
        Side.SUBMISSION,
        "the strategy has unknown axes, bad sizes, or does not deal the rows evenly",
    )
    STRATEGY_WORLD_MISMATCH = (
        "strategy_world_mismatch",
        Side.SUBMISSION,
        "the product of the axes is not the number of ranks",
    )

    # The run in the sandbox.
    IMPORT_FAILED = "import_failed", Side.SUBMISSION, "importing the file raised an exception"
    SETUP_FAILED = "setup_failed", Side.SUBMISSION, "setup() raised an exception"
    WARMUP_FAILED = (
        "warmup_failed",
        Side.SUBMISSION,
        "inner_steps raised an exception on the warm-up tokens",
    )
    TRAINING_FAILED = "training_failed", Side.SUBMISSION, "inner_steps raised an exception"
    RESULT_INVALID = (
        "result_invalid",
        Side.SUBMISSION,
        "what inner_steps returned is not of the form of the contract",
    )
    OPENING_FAILED = "opening_failed", Side.SUBMISSION, "the committed state could not be written"
    RANK_EXITED = (
        "rank_exited",
        Side.SUBMISSION,
        "a rank ended, or was killed, before its work was done",
    )
    TIMED_OUT = "timed_out", Side.SUBMISSION, "a stage took longer than the limit of the benchmark"
    MEMORY_LIMIT = "memory_limit", Side.SUBMISSION, "the sandbox used more memory than the limit"
    PROCESS_LIMIT = (
        "process_limit",
        Side.SUBMISSION,
        "the sandbox had more processes and threads than the limit",
    )
    OUTBOX_LIMIT = (
        "outbox_limit",
        Side.SUBMISSION,
        "the sandbox wrote more into the outbox than the limit",
    )
    NOT_ENDED = (
        "not_ended",
        Side.SUBMISSION,
        "processes of the sandbox could not be ended in time",
    )
    BAD_MESSAGE = (
        "bad_message",
        Side.SUBMISSION,
        "a rank sent what is no message of the protocol, or one that was not due",
    )

    # Verification.
    OUTBOX_INVALID = (
        "outbox_invalid",
        Side.SUBMISSION,
        "the outbox holds something that is not the opened state",
    )
    COMMITMENT_BROKEN = (
        "commitment_broken",
        Side.SUBMISSION,
        "an opened tensor is not the one that was committed to",
    )
    STATE_INVALID = (
        "state_invalid",
        Side.SUBMISSION,
        "the final state has missing, unknown, misshapen or wrongly typed tensors, or NaN",
    )
    LOSS_MISMATCH = (
        "loss_mismatch",
        Side.SUBMISSION,
        "the reported loss is not that of the reference",
    )
    UPDATE_MISMATCH = (
        "update_mismatch",
        Side.SUBMISSION,
        "the update of the weights is not that of the reference",
    )

    # Input of the person who runs the command.
    HPARAMS_INVALID = "hparams_invalid", Side.CALLER, "the hparams file is not valid"
    BAD_ARGUMENT = (
        "bad_argument",
        Side.CALLER,
        "an option does not fit the benchmark or the machine",
    )
    SNAPSHOT_MISSING = "snapshot_missing", Side.CALLER, "the benchmark has not been preloaded"
    SNAPSHOT_CHANGED = (
        "snapshot_changed",
        Side.CALLER,
        "a preloaded file is not the one of the manifest",
    )
    UNKNOWN_PEAK = (
        "unknown_peak",
        Side.CALLER,
        "the peak of this device is not known: set mfu.peak_tflops",
    )
    SANDBOX_UNAVAILABLE = (
        "sandbox_unavailable",
        Side.CALLER,
        "the wanted isolation level does not work here",
    )

    # The leaderboard.
    STORE_UNAVAILABLE = (
        "store_unavailable",
        Side.CALLER,
        "the store of the leaderboard cannot be opened",
    )
    STORE_NEWER = "store_newer", Side.CALLER, "a newer version has written the store"
    UNKNOWN_ID = "unknown_id", Side.CALLER, "there is no such submission, author, key or season"
    NOT_NOW = "not_now", Side.CALLER, "what was asked for does not fit the state that things are in"
    KEY_REFUSED = "key_refused", Side.CALLER, "the API key is missing, wrong or revoked"
    RATE_LIMITED = "rate_limited", Side.CALLER, "the author has handed in too much lately"

    # Ours, or of the machine.
    STORE_FAILED = "store_failed", Side.JUDGE, "the store of the leaderboard failed"
    MACHINE_BUSY = (
        "machine_busy",
        Side.JUDGE,
        "a stage took too long, and other programs had much of the machine meanwhile",
    )
    DISK_FULL = "disk_full", Side.JUDGE, "others filled the disk that a state was to be written to"
    NODE_LOST = (
        "node_lost",
        Side.JUDGE,
        "one of an evaluation's machines was lost, or its agent does not answer",
    )
    NODE_UNLIKE = (
        "node_unlike",
        Side.JUDGE,
        "the node that judged was found to be unlike its class since; it is judged once more elsewhere",
    )
    WORKER_FAILED = "worker_failed", Side.JUDGE, "a rank failed before the submission was loaded"
    REFERENCE_FAILED = "reference_failed", Side.JUDGE, "the trusted reference failed"
    DOWNLOAD_FAILED = "download_failed", Side.JUDGE, "the hub could not be reached"
    INTERNAL = "internal", Side.JUDGE, "a defect of the judge"


class TrainjudgeError(Exception):
    """Base of the three; never raised itself.

    Args:
        code: the machine-readable reason.
        message: one or two sentences for the person who has to act: what is wrong and what to do.
        detail: longer evidence, such as the last lines of a traceback; may be empty.
    """

    exit_status: ClassVar[int]

    def __init__(self, code: Code, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


class SubmissionError(TrainjudgeError):
    """The submission's fault: the evaluation is `rejected`."""

    exit_status = 1


class InputError(TrainjudgeError):
    """The caller's fault: a bad option, a bad hparams file, a snapshot that is not there."""

    exit_status = 2


class JudgeError(TrainjudgeError):
    """Our fault, or the machine's: the evaluation is an `error`, retried and never scored."""

    exit_status = 3
