"""Numbers and times as people read them."""

import math

import pytest

from harness.board.states import SubmissionState
from harness.errors import Verdict
from harness.web import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.0123456, "0.01235"), (0.0004, "0.0004"), (3.2e-7, "3.20e-07"),
        (123456.0, "1.23e+05"), (math.nan, "not a number"), (math.inf, "infinite"),
    ],
)  # fmt: skip
def test_a_measured_figure(value: float, text: str) -> None:
    assert words.small(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.25, "1.2 s"), (59, "59 s"), (600, "10 min"), (7_200, "2 h"), (3e5, "3 days"), (None, "–")],
)
def test_a_duration(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


def test_a_moment_far_outside_of_the_calendar_is_a_moment() -> None:
    assert "9999" in words.when(1e300)
    assert "1970" in words.when(-1e300)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("the file is empty", "The file is empty."),
        ("update_error is 0.3", "update_error is 0.3."),
        ("Done!", "Done!"),
        ("", ""),
    ],
)
def test_a_sentence_leaves_names_as_they_are(text: str, sentence: str) -> None:
    assert words.sentence(text) == sentence


@pytest.mark.parametrize(
    ("state", "verdict", "said", "tone"),
    [
        (SubmissionState.JUDGED, Verdict.ACCEPTED, "Accepted", "good"),
        (SubmissionState.JUDGED, Verdict.REJECTED, "Rejected", "bad"),
        (SubmissionState.QUEUED, Verdict.ACCEPTED, "Waiting for its turn", "quiet"),
        (SubmissionState.HELD, Verdict.ACCEPTED, "Accepted, waits for the organiser", "odd"),
        (SubmissionState.INVALIDATED, Verdict.ACCEPTED, "Invalidated by the organiser", "bad"),
    ],
)
def test_a_verdict_in_words(state: SubmissionState, verdict: Verdict, said: str, tone: str) -> None:
    assert (words.state_words(state, verdict), words.tone(state, verdict)) == (said, tone)
