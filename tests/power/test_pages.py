"""The pages about power are what the measured runs say by the tolerances of today."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from harness.reference.cheats.families import FAMILIES
from measurements.power.pages import FIGURE, PAGE, documents, families
from measurements.power.plot import GOAL, _place, plot
from tests.power.test_detection import FAR, NEAR, OVER, judged
from tests.project import ROOT

COMMAND = "run: python -m measurements.power.pages"


def test_the_pages_are_made_of_what_was_measured() -> None:
    for path, text in documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)}: {COMMAND}"


def test_every_family_has_a_place_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [name for name in FAMILIES if f"`{name}`" not in page]
    assert not missing


def test_the_table_says_what_passes_and_what_is_not_shown() -> None:
    some = {
        "SGD": [judged([NEAR] * 4, 0.04), judged([OVER] * 4, 0.08)],
        "AdamW": [judged([FAR] * 4, 0.04, saves_bytes=0.3)],
    }
    assert families(some).splitlines() == [
        "| left out | SGD | AdamW |",
        "|---|---|---|",
        "| top 1 | 1.00% (2.00%) | nothing (30.00% of bytes) |",
    ]


def test_the_figure_is_a_drawing_with_a_mark_for_what_passes() -> None:
    text = plot({"SGD": [judged([NEAR] * 4, 0.04)], "AdamW": [judged([OVER] * 400, 0.04)]})
    drawing = ElementTree.fromstring(text)
    circles = [each for each in drawing.iter() if each.tag.endswith("circle")]
    # A legend of two, and for the one that passes a dot and a ring in the same place.
    assert len(circles) == 4
    assert {circle.get("cx") for circle in circles[2:]} == {f"{_place(GOAL):.1f}"}
    assert re.search(r">top 1</text>", text)
    assert FIGURE.name in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("part", "share"), [(1e-6, 0.0), (1e-2, 0.5), (1.0, 1.0), (3.0, 1.0)])
def test_the_axis_is_logarithmic_and_ends(part: float, share: float) -> None:
    left, right = _place(0.0), _place(1.0)
    assert _place(part) == pytest.approx(left + share * (right - left))


def test_a_larger_saving_is_further_right() -> None:
    places = [_place(part) for part in (0.001, 0.01, 0.1, 0.5)]
    assert all(one < other for one, other in pairwise(places))
