"""Charts: where things are drawn, also for values that are no numbers."""

import math

import pytest

from harness.result import Metric
from harness.web.boards import Dot, RecordRow
from harness.web.charts import bars, check_bars, nice_ticks, record_chart, step_plot
from tests.board.examples import accepted_result, rejected_result


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.21, 0.39, [0.2, 0.25, 0.3, 0.35, 0.4]),
        (0.0, 0.9, [0.0, 0.5, 1.0]),
        (0.4, 0.4, [0.4, 0.42]),
    ],
)
def test_ticks_are_round_and_hold_everything(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high, 4) == pytest.approx(ticks)


def record(at: float, score: float, submission: int = 1) -> RecordRow:
    return RecordRow(at=at, submission=submission, author="a", score=score, threshold=0.0, jump=0.0)


def test_the_record_is_a_step_line() -> None:
    chart = record_chart([record(0, 0.2), record(50_000, 0.4, 2)], (), 100_000, wide=True)
    assert chart is not None
    # It goes level to the moment of the new record, then up at once, then level until now.
    assert chart.line == "M52.0 230.0H500.0V14.0H948"


def test_dots_link_to_what_they_are() -> None:
    dot = Dot(at=10, submission=9, author="b", score=0.1)
    chart = record_chart([record(0, 0.2)], [dot], 100_000, wide=False)
    assert chart is not None
    assert [(point.submission, point.record) for point in chart.points] == [(9, False), (1, True)]


def test_without_a_record_there_is_no_chart() -> None:
    assert record_chart([], (), 100.0, wide=True) is None


def test_a_check_is_a_bar_with_the_limit_at_two_thirds() -> None:
    bar = check_bars(accepted_result())[0]
    assert (bar.name, bar.over, bar.mark) == ("loss", False, 66.7)
    assert bar.fill == pytest.approx(100 * 0.0004 / 0.0023 / 1.5, abs=0.1)


def test_what_is_over_is_marked_and_ends_within_the_bar() -> None:
    [over] = [bar for bar in check_bars(rejected_result()) if bar.over]
    assert (over.name, over.fill) == ("update_error", 100.0)


@pytest.mark.parametrize("measured", [math.nan, math.inf])
def test_what_is_no_number_is_over(measured: float) -> None:
    result = accepted_result((0.4, 0.4))
    runs = list(result.runs)
    wrong = (Metric(name="loss", measured=measured, allowed=0.1),)
    runs[0] = runs[0].model_copy(update={"metrics": wrong})
    bar = check_bars(result.model_copy(update={"runs": tuple(runs)}))[0]
    assert bar.over
    assert bar.fill == 100.0


def test_step_weights_of_one_reach_the_line() -> None:
    run = accepted_result().runs[0].model_copy(update={"step_weights": (1.0, 0.0, 9.0, math.nan)})
    plot = step_plot(run)
    assert plot is not None
    tops = [column[1] for column in plot.columns]
    assert tops[0] == pytest.approx(plot.one)
    assert tops[1:] == [56.0, 0.0, 56.0]
    assert step_plot(run.model_copy(update={"step_weights": ()})) is None


def test_bars_are_shares_of_the_largest() -> None:
    assert [bar.fill for bar in bars([("a", 1.0), ("b", 4.0), ("c", 0.0)])] == [25.0, 100.0, 0.0]
    assert [bar.fill for bar in bars([("a", 0.0)])] == [0.0]
