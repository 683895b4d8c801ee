"""Who is to blame, and what to do: every failure that reaches a person has one of these codes.

Three exceptions, one for each guilty side. They carry a `Code`, a sentence for the person who has to
act, and an optional detail (a traceback tail from the sandbox, a command's output). Only the CLI
turns them into exit statuses.
"""

from enum import StrEnum
from typing import ClassVar


class Verdict(StrEnum):
    """How an evaluation ended. `rejected` is the submission's fault, `error` is ours."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ERROR = "error"


class Code(StrEnum):
    """Machine-readable reason of a verdict; `docs/result.md` lists them with their meaning."""

    OK = "ok"

    # The file itself (seen without running it).
    FILE_UNREADABLE = "file_unreadable"
    FILE_TOO_LARGE = "file_too_large"
    SYNTAX_ERROR = "syntax_error"
    NO_INNER_STEPS = "no_inner_steps"
    BAD_SIGNATURE = "bad_signature"
    STRATEGY_NOT_LITERAL = "strategy_not_literal"
    STRATEGY_INVALID = "strategy_invalid"
    STRATEGY_WORLD_MISMATCH = "strategy_world_mismatch"

    # The run in the sandbox.
    IMPORT_FAILED = "import_failed"
    SETUP_FAILED = "setup_failed"
    WARMUP_FAILED = "warmup_failed"
    TRAINING_FAILED = "training_failed"
    RESULT_INVALID = "result_invalid"
    OPENING_FAILED = "opening_failed"
    RANK_EXITED = "rank_exited"
    TIMED_OUT = "timed_out"
    MEMORY_LIMIT = "memory_limit"
    PROCESS_LIMIT = "process_limit"
    OUTBOX_LIMIT = "outbox_limit"
    BAD_MESSAGE = "bad_message"

    # Verification.
    OUTBOX_INVALID = "outbox_invalid"
    COMMITMENT_BROKEN = "commitment_broken"
    STATE_INVALID = "state_invalid"
    LOSS_MISMATCH = "loss_mismatch"
    TOKENS_MISMATCH = "tokens_mismatch"
    UPDATE_MISMATCH = "update_mismatch"

    # Input of the person who runs the command.
    HPARAMS_INVALID = "hparams_invalid"
    BAD_ARGUMENT = "bad_argument"
    SNAPSHOT_MISSING = "snapshot_missing"
    SNAPSHOT_CHANGED = "snapshot_changed"
    UNKNOWN_PEAK = "unknown_peak"

    # Ours.
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"
    WORKER_FAILED = "worker_failed"
    REFERENCE_FAILED = "reference_failed"
    DOWNLOAD_FAILED = "download_failed"
    INTERNAL = "internal"


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
