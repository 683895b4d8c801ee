"""Where a submission or an evaluation can be."""

from enum import StrEnum


class SubmissionState(StrEnum):
    """Of a submission. Only a `judged` one can be ranked."""

    QUEUED = "queued"
    RUNNING = "running"
    JUDGED = "judged"
    HELD = "held"
    FAILED = "failed"  # by us, too often
    CANCELLED = "cancelled"
    INVALIDATED = "invalidated"


class EvaluationState(StrEnum):
    """Of an evaluation."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
