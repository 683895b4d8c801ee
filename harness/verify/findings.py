"""What a check has to say: the form of a finding."""

from enum import StrEnum

from pydantic import Field

from harness.errors import Code
from harness.records import Record


class Severity(StrEnum):
    REJECTS = "rejects"
    NOTE = "note"


class TensorFinding(Record):
    """One tensor, or one slice of it, and how it fails a check."""

    tensor: str
    slice_index: int | None = Field(
        default=None, description="expert or embedding row, along the first dimension"
    )
    measured: float
    message: str


class Finding(Record):
    """What one check found in one run. Checks that pass without anything to say leave none."""

    code: Code
    check: str = Field(
        description="a field of the tolerances, or: tokens, finite, exact, still, unmoved, versions, "
        "strict_update_error, means, asked, likely_cause, tried"
    )
    severity: Severity
    message: str
    measured: float | None = None
    allowed: float | None = None
    worst: tuple[TensorFinding, ...] = Field(
        default=(), description="the worst tensors, the worst first; not all of them"
    )


def rejects(
    code: Code,
    check: str,
    message: str,
    measured: float | None = None,
    allowed: float | None = None,
    worst: tuple[TensorFinding, ...] = (),
) -> Finding:
    """A finding that rejects the run."""
    return Finding(
        code=code,
        check=check,
        severity=Severity.REJECTS,
        message=message,
        measured=measured,
        allowed=allowed,
        worst=worst,
    )


def note(check: str, message: str) -> Finding:
    """A finding that rejects nothing, but must not go unsaid."""
    return Finding(code=Code.OK, check=check, severity=Severity.NOTE, message=message)
