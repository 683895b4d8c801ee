"""Sources as they are shown: coloured, complete, and in bounded time."""

import re
import time
from html import unescape

import pytest

from harness.web.source import coloured, cut, difference


def read(markup: str) -> str:
    """What stands on the page, without its colours."""
    return unescape(re.sub(r"<[^>]*>", "", markup))


def test_a_source_is_coloured_and_complete() -> None:
    text = '\n\ndef f(x):\n    return f"{x} & <b>"  # é\n\n'
    shown = coloured(text)
    assert '<span class="hl-k">def</span>' in shown
    assert read(shown) == text


@pytest.mark.parametrize("unit", [" \n", "{", "@", "(", "f'{", '"""', "\\", "class\\\n"])
def test_a_source_that_was_made_to_hurt_a_lexer_is_complete_still(unit: str) -> None:
    text = unit * (60_000 // len(unit)) + "\n"
    started = time.thread_time()
    shown = coloured(text)
    assert time.thread_time() - started < 8
    assert read(shown) == text


def test_a_long_source_is_plain_and_its_end_is_left_out() -> None:
    text = "<b>" + "x" * 300_000
    assert coloured(text).startswith("&lt;b&gt;xxx")
    assert "<" not in coloured(text)
    assert len(coloured(text)) < 270_000
    assert (cut(text), cut("x")) == (True, False)


def test_a_difference_is_marked_and_harmless() -> None:
    found = difference("a = 1\nb = 2\n", "a = 1\nb = '<script>' # \u202e\n")
    assert '<span class="hl-gd">-b = 2' in found.lines
    assert "&lt;script&gt;" in found.lines
    assert "\u202e" not in found.lines
    assert difference("a\n", "a\n").lines == ""
