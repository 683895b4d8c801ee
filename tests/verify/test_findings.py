"""The form of a finding, as it goes into the result document."""

import json
import math

import pytest
from pydantic import ValidationError

from harness.errors import Code
from harness.verify.findings import Finding, Severity, TensorFinding, note, rejects

WORST = (TensorFinding(tensor="gate", slice_index=3, measured=math.inf, message="far off"),)


def test_a_finding_that_rejects_carries_everything_that_was_said() -> None:
    found = rejects(Code.UPDATE_MISMATCH, "exact", "is not equal", 2.0, 0.0, WORST)
    assert found.severity is Severity.REJECTS
    assert (found.code, found.check, found.message) == (
        Code.UPDATE_MISMATCH, "exact", "is not equal",
    )  # fmt: skip
    assert (found.measured, found.allowed, found.worst) == (2.0, 0.0, WORST)


def test_a_finding_may_have_no_figures() -> None:
    found = rejects(Code.LOSS_MISMATCH, "loss", "too low")
    assert (found.measured, found.allowed, found.worst) == (None, None, ())


def test_a_note_rejects_nothing() -> None:
    found = note("versions", "two of them")
    assert (found.severity, found.code, found.check) == (Severity.NOTE, Code.OK, "versions")
    assert found.message == "two of them"


def test_a_finding_survives_json_infinity_included() -> None:
    found = rejects(Code.UPDATE_MISMATCH, "update_error", "off", math.inf, 0.5, WORST)
    text = found.model_dump_json()
    assert Finding.model_validate_json(text) == found
    parsed = json.loads(text, parse_constant=pytest.fail)  # bare Infinity is no JSON
    assert parsed["severity"] == "rejects"
    assert parsed["measured"] == parsed["worst"][0]["measured"] == "Infinity"
    assert parsed["worst"][0]["slice_index"] == 3


def test_the_words_of_a_severity_are_those_of_the_result_document() -> None:
    assert [str(severity) for severity in Severity] == ["rejects", "note"]


@pytest.mark.parametrize("part", [note("versions", "two"), WORST[0]])
def test_a_finding_has_no_other_field_and_is_not_changed_later(
    part: Finding | TensorFinding,
) -> None:
    with pytest.raises(ValidationError):
        type(part).model_validate({**part.model_dump(), "more": 1})
    with pytest.raises(ValidationError):
        part.message = "something else"
