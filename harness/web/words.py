"""Numbers, times and verdicts as people read them; the filters of all templates."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from markupsafe import Markup

from harness.board.figures import iso, percent, utc
from harness.board.states import SubmissionState
from harness.errors import Verdict
from harness.verify.metrics import RunMetrics

MINUTE, HOUR, DAY = 60, 3_600, 86_400

STATES: Final[Mapping[SubmissionState, str]] = {
    SubmissionState.QUEUED: "Waiting for its turn",
    SubmissionState.RUNNING: "Being judged now",
    SubmissionState.JUDGED: "Judged",
    SubmissionState.HELD: "Accepted, waits for the organiser",
    SubmissionState.FAILED: "We could not judge it",
    SubmissionState.CANCELLED: "Cancelled",
    SubmissionState.INVALIDATED: "Invalidated by the organiser",
}
VERDICTS: Final[Mapping[Verdict, str]] = {
    Verdict.ACCEPTED: "Accepted",
    Verdict.REJECTED: "Rejected",
    Verdict.ERROR: "We failed",
}


def state_words(state: SubmissionState, verdict: Verdict | None) -> str:
    """Where a submission stands, in a word or a few."""
    if state is SubmissionState.JUDGED and verdict is not None:
        return VERDICTS[verdict]
    return STATES[state]


def tone(state: SubmissionState, verdict: Verdict | None) -> str:
    """Which of the four colours: good, bad, odd or quiet. Never the only sign of anything."""
    match state:
        case SubmissionState.JUDGED if verdict is Verdict.ACCEPTED:
            return "good"
        case SubmissionState.JUDGED if verdict is Verdict.REJECTED:
            return "bad"
        case SubmissionState.INVALIDATED:
            return "bad"
        case SubmissionState.HELD | SubmissionState.FAILED | SubmissionState.JUDGED:
            return "odd"
        case _:
            return "quiet"


def number(value: float | None) -> str:
    """With commas between thousands."""
    return "–" if value is None else f"{value:,.0f}"


def span(low: float | None, high: float | None) -> str:
    """From the slowest to the fastest run."""
    if low is None or high is None:
        return "–"
    return f"{100 * low:.2f}–{percent(high)}"


def small(value: float) -> str:
    """A measured figure, whatever its size; two significant digits decide nothing, so four."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return f"{value:.4g}" if value == 0 or 1e-4 <= abs(value) < 1e4 else f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """As somebody would say it, roughly."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.0f} h"
    return f"{seconds / DAY:.0f} days"


def ago(at: float | None) -> Markup:
    """How long ago, with the moment itself for whoever asks."""
    if at is None:
        return Markup("–")
    past = max(0.0, time.time() - at)
    words = "just now" if past < 10 else f"{duration(past)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso(at), when(at), words)


def moment(at: float | None) -> Markup:
    """A moment, in UTC."""
    if at is None:
        return Markup("–")
    return Markup('<time datetime="{}">{}</time>').format(iso(at), when(at))


def when(at: float) -> str:
    """Day and time, in UTC."""
    return f"{utc(at):%d %b %Y, %H:%M} UTC".lstrip("0")


def day(at: float) -> str:
    """Without the time."""
    return f"{utc(at):%d %b %Y}".lstrip("0")


def gibibytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.0f} MiB"


def check_name(name: str) -> str:
    """A field of the tolerances as words."""
    return name.replace("_", " ")


def check_meaning(name: str) -> str:
    """What a check measures; empty for one that this version does not know."""
    field = RunMetrics.model_fields.get(name)
    return (field.description or "") if field else ""


def sentence(text: str) -> str:
    """With a full stop, and a capital unless it begins with a name."""
    text = text.strip()
    if not text:
        return ""
    start = text[0].upper() if text.split()[0].rstrip(",:").isalpha() else text[0]
    return start + text[1:] + ("" if text[-1] in ".!?:" else ".")


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    each.__name__: each
    for each in (
        state_words, tone, percent, number, span, small, duration, ago, moment, when, day, iso, gibibytes,
        check_name, check_meaning, sentence,
    )
}  # fmt: skip
