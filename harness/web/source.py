"""Sources as they are shown: coloured, and compared with an earlier one. Both are kept for a while."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.diff import DiffLexer
from pygments.lexers.python import PythonLexer

from harness.board.copies import diff
from harness.protocol.text import printable

#: Larger ones are shown without colours: a lexer is slow, and its time grows with what a stranger sent.
COLOURED_BYTES: Final = 64 * 1024
SHOWN_BYTES: Final = 256 * 1024

_FORMAT: Final = HtmlFormatter(nowrap=True, classprefix="hl-")


@dataclass(frozen=True)
class Difference:
    """As HTML; empty where nothing that can be seen differs. `cut`: some of it is left out."""

    lines: Markup
    cut: bool


@lru_cache(maxsize=64)
def coloured(source: str) -> Markup:
    """A train file as HTML; characters that would reorder or hide text are shown as such."""
    text = printable(source[:SHOWN_BYTES])
    if len(text) > COLOURED_BYTES:
        return Markup("{}").format(text)
    return Markup(highlight(text, PythonLexer(stripnl=False), _FORMAT))


def cut(source: str) -> bool:
    """Whether `coloured` leaves something away."""
    return len(source) > SHOWN_BYTES


@lru_cache(maxsize=64)
def difference(earlier: str, later: str) -> Difference:
    """What changed. Comparing is done in a child with limits, as a stranger chose both files."""
    found = diff(printable(earlier), printable(later))
    text = "\n".join(found.lines)
    return Difference(Markup(highlight(text, DiffLexer(stripnl=False), _FORMAT)), found.cut)
