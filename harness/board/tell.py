"""The board in a terminal: tables and stories from views and rankings."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.board.figures import percent, utc
from harness.board.organise import SeasonPlan
from harness.board.people import AuthorLine
from harness.board.places import in_order
from harness.board.rank import Ranking
from harness.board.states import EvaluationState, SubmissionState
from harness.board.store import Store
from harness.board.views import SeasonView, SubmissionView, result_document, submission_view
from harness.board.waiting import QueueEntry

OVER = frozenset(
    {
        SubmissionState.JUDGED,
        SubmissionState.HELD,
        SubmissionState.FAILED,
        SubmissionState.CANCELLED,
        SubmissionState.INVALIDATED,
    }
)


def moment(seconds: float) -> str:
    """A time as people read it, UTC."""
    return f"{utc(seconds):%Y-%m-%d %H:%M:%S}"


def minute(seconds: float) -> str:
    """The same for tables: narrow."""
    return moment(seconds)[:16]


def queue_table(entries: Sequence[QueueEntry]) -> Table:
    """What runs and what waits."""
    table = Table(box=None, pad_edge=False)
    for column in ("turn", "submission", "author", "file", "since (UTC)", "now"):
        numeric = column in ("turn", "submission")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for entry in entries:
        runs = entry.position == 0
        said = (entry.progress.strip().splitlines() or ["starting"])[-1] if runs else entry.why
        table.add_row(
            "runs" if runs else str(entry.position),
            str(entry.submission),
            Text(entry.author),
            Text(entry.file_name),
            minute(entry.started_at or entry.queued_at),
            Text(said),
        )
    return table


def submission_story(view: SubmissionView) -> RenderableType:
    """Who handed in what, and everything that happened to it."""
    head = Text(f"submission {view.id} of {view.author}: {view.file_name}, {view.strategy}")
    lines: list[RenderableType] = [head]
    if view.note:
        lines.append(Text(f"note: {view.note}", style="italic"))
    said = f"{view.state}: {view.why}" if view.why else str(view.state)
    lines.append(Text(said if view.verdict is None else f"{said}, {view.verdict}", style="bold"))
    lines += [Text(f"alarm: {alarm}", style="red") for alarm in view.alarms]
    history = Table(box=None, pad_edge=False, show_header=False)
    for line in view.history:
        history.add_row(moment(line.at), Text(line.text))
    return Group(*lines, history)


def board_table(
    season: str, ranking: Ranking, *, limit: int, all_entries: bool = False
) -> RenderableType:
    """Rank by rank; with `all_entries` also what is not ranked, and why. Fits 80 columns."""
    shown = in_order(ranking, every=all_entries).head(limit)
    if shown.empty:
        return Text(f"{season}: nothing is ranked yet")
    ranked, others = shown[shown["rank"].notna()], shown[shown["rank"].isna()]
    parts: list[RenderableType] = [Text(season, style="bold")]
    parts += [] if ranked.empty else [_ranked_table(ranked)]
    parts.append(Text(_what_leads(ranking), style="dim"))
    parts += [] if others.empty else [Text("not ranked", style="bold"), _others_table(others)]
    return Group(*parts)


def _ranked_table(ranked: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("rank", "MFU", "from–to %", "runs", "number"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("author", "strategy"):
        table.add_column(column, overflow="fold")
    table.add_column("handed in (UTC)", no_wrap=True)
    for number, row in ranked.iterrows():
        table.add_row(
            str(row["rank"]),
            percent(row["score"]),
            f"{100 * row['low']:.2f}–{100 * row['high']:.2f}",
            str(row["runs"]),
            str(number),
            Text(str(row["author"])),
            Text(str(row["strategy"])),
            minute(row["at"]),
        )
    return table


def _others_table(others: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("number", justify="right", no_wrap=True)
    table.add_column("author", overflow="fold")
    table.add_column("handed in (UTC)", no_wrap=True)
    table.add_column("MFU", justify="right", no_wrap=True)
    table.add_column("why not", overflow="fold")
    for number, row in others.iterrows():
        why = "" if pd.isna(row["why_not"]) else str(row["why_not"])
        table.add_row(
            str(number), Text(str(row["author"])), minute(row["at"]), percent(row["score"]), why
        )
    return table


def _what_leads(ranking: Ranking) -> str:
    """What it takes to lead, and what stands in the way of knowing who does."""
    ahead = f"A new leader has to be {100 * ranking.threshold:.2f} % ahead now."
    waiting = [f"{contender} against {leader}" for contender, leader in ranking.pending]
    if waiting:
        ahead += f" Still to be compared: {', '.join(waiting[:5])}."
    if ranking.stopped:
        ahead += (
            f" Nothing is compared with {ranking.leader} until the organiser has looked: a paired run "
            "of it was rejected."
        )
    return ahead


def seasons_table(seasons: Sequence[SeasonView]) -> Table:
    """Newest first."""
    table = Table(box=None, pad_edge=False)
    for column in ("season", "benchmark", "ranks", "hardware", "from (UTC)", "until (UTC)"):
        table.add_column(column, overflow="fold")
    for season in seasons:
        ends = season.closed_at or season.ends_at
        table.add_row(
            season.name,
            Text(season.benchmark),
            str(season.world_size),
            Text(season.hardware),
            minute(season.starts_at),
            "it is closed" if ends is None else minute(ends),
        )
    return table


def season_story(season: SeasonView, now: float) -> RenderableType:
    """What it is about, since when and how long, and every field of its rule."""
    ends = season.closed_at or season.ends_at
    until = "" if ends is None else f", until {minute(ends)}"
    how = "is over" if season.over(now) else "is open" if season.runs(now) else "has not begun"
    plan = SeasonPlan(
        season.name,
        season.hparams_sha256,
        season.benchmark,
        season.world_size,
        season.hardware,
        season.rule,
    )
    about = plan.words()[:-1]  # its last line is of the rule, which stands below in full
    rule = Table(box=None, pad_edge=False)
    for column in ("rule", "value", "meaning"):
        rule.add_column(column)
    for name, field in type(season.rule).model_fields.items():
        value = getattr(season.rule, name)
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        rule.add_row(name, "none" if value is None else shown, Text(field.description or ""))
    return Group(
        Text(f"season {season.name} {how}: from {minute(season.starts_at)}{until} (UTC)"),
        *(Text(f"  {line}") for line in about),
        rule,
    )


def authors_table(authors: Sequence[AuthorLine]) -> Table:
    """By name."""
    table = Table(box=None, pad_edge=False)
    for column in ("author", "submissions", "since (UTC)", "valid keys begin with"):
        table.add_column(column)
    for author in authors:
        keys = ", ".join(author.keys) or "none"
        table.add_row(author.name, str(author.submissions), minute(author.added_at), keys)
    return table


class Follower:
    """The log of a submission, a few lines at a time: each line comes once."""

    def __init__(self, store: Store, submission: int) -> None:
        self._store = store
        self._submission = submission
        self._told: set[int] = set()
        self._progress: list[str] = []
        self.over = False

    def new_lines(self) -> list[str]:
        """What came since the last call; at the end what the train file printed. Raises InputError."""
        with self._store.read() as session:
            view = submission_view(session, self._submission, self._store.now())
            finished = [each.id for each in view.evaluations if each.has_result]
            self.over = view.state in OVER
            result = result_document(session, finished[-1]) if self.over and finished else None
        lines = []
        for event in view.history:
            if event.id not in self._told:
                self._told.add(event.id)
                lines.append(f"{moment(event.at)}  {event.text}")
        running = [each for each in view.evaluations if each.state is EvaluationState.RUNNING]
        said = running[-1].progress.splitlines() if running else []
        if said[: len(self._progress)] != self._progress:
            self._progress = []
        lines += said[len(self._progress) :]
        self._progress = said
        if result is not None and result.log:
            lines += ["", "what the sandbox printed:", *result.log.splitlines()]
        return lines
