"""The command `compare`: two train files in turns on this machine, until it is known which is faster."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    LEVELS_HELP,
    HparamsOption,
    ImageOption,
    SnapshotOption,
    WorldOption,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from harness.board.pairs import Comparison, Pair, Side
    from harness.result import EvaluationResult

PLOT_WIDTH = 34


def add_to(app: typer.Typer) -> None:
    """Make `compare` a command of `app`."""
    app.command()(compare)


def compare(
    a: Annotated[Path, typer.Argument(help="A train file.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    pairs: Annotated[
        int, typer.Option(min=1, max=1000, help="The most pairs that are run; below 4 tell little.")
    ] = 10,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Of the interval, both ends together.")
    ] = 0.95,
    hparams: HparamsOption = None,
    world: WorldOption = None,
    sandbox: Annotated[str, typer.Option(help=LEVELS_HELP)] = "auto",
    image: ImageOption = None,
    snapshot: SnapshotOption = None,
    json: Annotated[
        str | None,
        typer.Option(help="Where the numbers go as JSON; - is stdout, and nothing else."),
    ] = None,
) -> None:
    """Is A faster than B? Run both in turns, fully judged, until an interval tells or the pairs are spent.

    A pair takes about as long as two of `validator run --runs 1`. Status 1: one of them was rejected.

    [dim]validator compare mine.py submissions/train_ddp.py[/dim]

    [dim]validator compare new.py old.py --pairs 20 --world 2 --json comparison.json[/dim]
    """
    from rich.console import Console

    from harness.api import judge_file
    from harness.benchmark.hparams import load_hparams
    from harness.board.pairs import Plan
    from harness.board.pairs import compare as compare_in_turns
    from harness.report import ProgressDisplay
    from harness.results import result_file

    printed = json == "-"
    place = result_file("comparison", Path(json)) if json and not printed else None
    # One-sided: each of two ends takes half of what may be wrong.
    plan = Plan(
        pairs=pairs,
        confidence=(1 + confidence) / 2,
        together=load_hparams(hparams).hparams.together,
    )
    with tempfile.TemporaryDirectory(prefix="trainjudge-compare-") as folder:
        copies = _copies(Path(folder), a, b)

        def judge(side: "Side") -> "EvaluationResult":
            return judge_file(
                copies[side], hparams=hparams, world_size=world, runs=1, sandbox=sandbox,
                image=image, snapshot=snapshot, quiet=True,
            )  # fmt: skip

        with ProgressDisplay(quiet=printed) as progress:
            progress.line(f"A is {a.name}, B is {b.name}; at most {pairs} pairs")
            found = compare_in_turns(judge, plan, _teller(progress.line, pairs))
    document = found.model_dump_json(indent=2)
    if printed:
        typer.echo(document)
    else:
        console = Console()
        console.print(render(found, a.name, b.name))
        if place is not None:
            place.write_text(document + "\n", encoding="utf-8")
            console.print(f"numbers: {place}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if found.outcome == "rejected" else 0)


def _copies(folder: Path, a: Path, b: Path) -> dict["Side", Path]:
    """Both files as they are now: whoever edits one meanwhile does not change what is compared.

    Raises InputError, SubmissionError: before anything is run, where one of them cannot be.
    """
    from harness.submission.read import read

    copies: dict[Side, Path] = {}
    sides: tuple[tuple[Side, Path], ...] = ("contender", a), ("leader", b)
    for side, path in sides:
        source = read(path).source
        copies[side] = folder / side / path.name
        copies[side].parent.mkdir()
        copies[side].write_bytes(source)
    return copies


def _teller(line: Callable[[str], None], budget: int) -> Callable[["Pair"], None]:
    done = 0

    def tell(pair: "Pair") -> None:
        nonlocal done
        done += 1
        line(
            f"pair {done} of at most {budget}: A {pair.contender_mfu:.2%}, B {pair.leader_mfu:.2%}, "
            f"A/B {pair.ratio:.4f}"
        )

    return tell


# --- what a person sees -----------------------------------------------------------------------


def render(found: "Comparison", a: str, b: str) -> "RenderableType":
    """A table of the pairs with a plot beside it, and the conclusion. It fits into 80 columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from harness.protocol.text import one_line

    names = Text(f"A: {one_line(a)}\nB: {one_line(b)}")
    conclusion = Text(sentence(found), style="bold")
    if not found.pairs:
        return Group(names, Text(), conclusion)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("pair", "first", "A, MFU", "B, MFU", "A/B"):
        table.add_column(head, justify="left" if head == "first" else "right", no_wrap=True)
    scale = Scale.around(found)
    table.add_column(Text(scale.axis()), no_wrap=True)
    for number, pair in enumerate(found.pairs, 1):
        table.add_row(
            str(number),
            "A" if pair.first == "contender" else "B",
            f"{pair.contender_mfu:.2%}",
            f"{pair.leader_mfu:.2%}",
            f"{pair.ratio:.4f}",
            Text(scale.dot(pair.ratio)),
        )
    assert found.ratio is not None
    bar = Text(scale.bar(found.ratio, found.low, found.high))
    table.add_row("mean", "", "", "", f"{found.ratio:.4f}", bar, style="bold")
    return Group(names, Text(), table, Text(), conclusion)


class Scale:
    """A line of PLOT_WIDTH characters, from one ratio to another. 1, where both are as fast, is marked."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    @classmethod
    def around(cls, found: "Comparison") -> "Scale":
        """All ratios, both bounds where they are near, and 1."""
        seen = [*(pair.ratio for pair in found.pairs), 1.0]
        spread = max(seen) - min(seen) or 0.01
        # A bound that is far away would press all dots into one; an arrow tells that it goes on.
        seen += [
            end for end in (found.low, found.high) if min(seen) - spread < end < max(seen) + spread
        ]
        return cls(min(seen) - 0.05 * spread, max(seen) + 0.05 * spread)

    def axis(self) -> str:
        """The ends, as per cent that A is faster."""
        left, right = f"{self._low - 1:+.1%}", f"{self._high - 1:+.1%}"
        return left + right.rjust(PLOT_WIDTH - len(left))

    def dot(self, ratio: float) -> str:
        """One pair."""
        return self._line({self._place(ratio): "●"})

    def bar(self, ratio: float, low: float, high: float) -> str:
        """The interval with its estimate; an arrow where it goes on."""
        left, right = self._place(low), self._place(high)
        if low == 0 and math.isinf(high):
            return self.dot(ratio)  # nothing is known
        marks = dict.fromkeys(range(left, right + 1), "─")
        marks[left] = "◄" if low < self._low else "├"
        marks[right] = "►" if high > self._high else "┤"
        return self._line(marks | {self._place(ratio): "●"})

    def _line(self, marks: dict[int, str]) -> str:
        return "".join((({self._place(1.0): "│"}) | marks).get(n, " ") for n in range(PLOT_WIDTH))

    def _place(self, ratio: float) -> int:
        share = (min(max(ratio, self._low), self._high) - self._low) / (self._high - self._low)
        return round(share * (PLOT_WIDTH - 1))


def sentence(found: "Comparison") -> str:
    """The conclusion, for people."""
    from harness.board.paired import MIN_PAIRS
    from harness.protocol.text import one_line

    if found.outcome == "rejected":
        which = "A" if found.rejected == "contender" else "B"
        return f"{which} was rejected ({found.code}): {one_line(found.message)}"
    sure = f"{100 * (2 * found.plan.confidence - 1):.4g}%"
    ratio = found.ratio or 1.0
    if found.outcome == "faster":
        return f"A is {_ahead(ratio)} faster than B ({sure}: {_ends(found.low, found.high)})."
    if found.outcome == "slower":
        ends = _ends(1 / found.high, math.inf if found.low == 0 else 1 / found.low)
        return f"B is {_ahead(1 / ratio)} faster than A ({sure}: {ends})."
    count = f"{len(found.pairs)} pair" + ("" if len(found.pairs) == 1 else "s")
    if len(found.pairs) < MIN_PAIRS:
        return (
            f"No difference could be shown: {count} cannot tell one from noise. It takes "
            f"{MIN_PAIRS} at least."
        )
    if found.low == 0 or math.isinf(found.high):
        return f"No difference could be shown with {count}."
    ends = " and ".join(_beside(end) for end in (found.low, found.high))
    return f"No difference could be shown with {count}: A's speed is between {ends} B's ({sure})."


def _ahead(ratio: float) -> str:
    return f"{ratio - 1:.1%}"


def _beside(ratio: float) -> str:
    return f"{abs(ratio - 1):.1%} {'above' if ratio > 1 else 'below'}"


def _ends(low: float, high: float) -> str:
    return f"{_ahead(low)} or more" if math.isinf(high) else f"{_ahead(low)} to {_ahead(high)}"
