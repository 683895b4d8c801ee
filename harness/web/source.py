"""Sources as they are shown: coloured, and compared with an earlier one. Both are kept for a while."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from markupsafe import Markup
from pygments import format, highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.diff import DiffLexer
from pygments.lexers.python import PythonLexer
from pygments.token import Text

from harness.board.copies import diff
from harness.protocol.text import printable

#: Larger ones are shown without colours.
COLOURED_CHARACTERS: Final = 64 * 1024
SHOWN_CHARACTERS: Final = 256 * 1024
#: Of CPU time. A lexer takes milliseconds for what people write, and minutes for what was made to hurt it.
LEXER_SECONDS: Final = 0.3

_FORMAT: Final = HtmlFormatter(nowrap=True, classprefix="hl-")


@dataclass(frozen=True)
class Difference:
    """As HTML; empty where nothing that can be seen differs. `cut`: some of it is left out."""

    lines: Markup
    cut: bool


@lru_cache(maxsize=64)
def coloured(source: str) -> Markup:
    """A train file as HTML; characters that would reorder or hide text are shown as such."""
    text = printable(source[:SHOWN_CHARACTERS])
    if len(text) > COLOURED_CHARACTERS:
        return Markup("{}").format(text)
    return Markup(format(_tokens(text), _FORMAT))


def _tokens(text: str) -> Iterator[tuple[Any, str]]:
    """For as long as there is time; the rest is plain."""
    end = time.thread_time() + LEXER_SECONDS
    for start, kind, value in PythonLexer().get_tokens_unprocessed(text):
        if time.thread_time() > end:
            yield Text, text[start:]
            return
        yield kind, value


def cut(source: str) -> bool:
    """Whether `coloured` leaves something away."""
    return len(source) > SHOWN_CHARACTERS


@lru_cache(maxsize=64)
def difference(earlier: str, later: str) -> Difference:
    """What changed. Comparing is done in a child with limits, as a stranger chose both files."""
    found = diff(printable(earlier), printable(later))
    if not found.lines:
        return Difference(Markup(), found.cut)
    text = "\n".join(found.lines)
    return Difference(Markup(highlight(text, DiffLexer(stripnl=False), _FORMAT)), found.cut)
