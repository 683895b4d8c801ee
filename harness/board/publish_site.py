"""The boards for people: a page that needs nothing else, and the README of a data set.

Both escape whatever came from outside: the page through its template, the README cell by cell.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.board.figures import iso, percent, utc
from harness.board.publish_data import COLUMNS, PublishedRow, SeasonBoard
from harness.protocol.text import one_line

#: Rows of a season that are shown; board.csv has all of them.
PAGE_ROWS: Final = 500
README_ROWS: Final = 100
#: Markdown's own characters; HTML's become entities, which no renderer takes for markup.
_MARKDOWN: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
    | {mark: f"\\{mark}" for mark in "\\`*_{}[]#~|!:@$"}
)
#: A viewer of data sets reads this: which of the files is the table.
HEADER: Final = """\
---
pretty_name: trainjudge leaderboard
tags:
- leaderboard
- benchmark
configs:
- config_name: default
  data_files: results.parquet
---
"""


def page(boards: Sequence[SeasonBoard], as_of: float | None, style: str) -> str:
    """index.html.

    Args:
        boards: of all seasons, in the order in which they are shown.
        as_of: when the last thing happened, seconds since 1970; None: nothing has.
        style: CSS of our own.
    """
    # Ours, and part of the package; still nothing may end the element early.
    safe_style = Markup(style.replace("</", "<\\/"))
    template = _environment().get_template("publish.html")
    return template.render(boards=boards, as_of=as_of, style=safe_style, most=PAGE_ROWS)


def readme(boards: Sequence[SeasonBoard], as_of: float | None) -> str:
    """README.md: a data set's card with the boards as tables."""
    lines = [
        "# Leaderboard",
        "",
        "Train files, judged: did they really do the training, and how fast? MFU is the share of the "
        "hardware's peak that was used.",
        f"As of {moment(as_of)}." if as_of is not None else "Nothing has happened yet.",
        "",
    ]
    for each in boards:
        lines += _season(each)
    lines += [
        "## Files",
        "",
        "`board.csv` has the boards in full. `results.parquet` has a row for every evaluation:",
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {_type(str(kind))} | {meaning} |" for name, kind, meaning in COLUMNS]
    return HEADER + "\n".join(lines) + "\n"


def _season(board: SeasonBoard) -> list[str]:
    season = board.season
    lines = [
        f"## Season {markdown(season.name)}",
        "",
        f"Benchmark {markdown(season.benchmark)}, {season.world_size} ranks, "
        f"{markdown(season.hardware) or 'any hardware'}.",
        "",
    ]
    if not board.rows:
        return [*lines, "Nothing is ranked yet.", ""]
    lines += [
        "| rank | author | MFU | slowest | fastest | runs | strategy | submission | handed in |",
        "|---:|---|---:|---:|---:|---:|---|---:|---|",
    ]
    lines += [_row(row) for row in board.rows[:README_ROWS]]
    if len(board.rows) > README_ROWS:
        lines += ["", f"And {len(board.rows) - README_ROWS:,} more, in `board.csv`."]
    return [*lines, ""]


def _row(row: PublishedRow) -> str:
    cells = (
        str(row.rank),
        markdown(row.author),
        percent(row.score),
        percent(row.low),
        percent(row.high),
        str(row.runs),
        markdown(row.strategy),
        str(row.submission),
        moment(row.at),
    )
    return f"| {' | '.join(cells)} |"


def markdown(text: str) -> str:
    """Foreign text that is text in Markdown, inside of a table too."""
    return one_line(text).translate(_MARKDOWN)


def moment(at: float) -> str:
    """A moment, in UTC."""
    return f"{utc(at):%Y-%m-%d %H:%M} UTC"


def _type(arrow: str) -> str:
    """Arrow's name of a type, as it stands in a table."""
    if arrow.startswith("timestamp"):
        return "timestamp, UTC"
    return arrow.replace("list<item: ", "list of ").replace(">", "")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "moment": moment, "iso": iso}
    return environment
