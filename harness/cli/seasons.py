"""Commands about seasons, `validator season`: what is competed for, on what, by which rule."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    ORGANISER_PANEL,
    DataOption,
    HparamsOption,
    NameArgument,
    StoreOption,
    WorldOption,
)
from harness.cli.store import opened
from harness.errors import Code, InputError

if TYPE_CHECKING:
    from harness.board.rule import ScoringRule

seasons = typer.Typer(no_args_is_help=True, help="What is competed for: new, list, show, close.")


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    app.add_typer(seasons, name="season", rich_help_panel=ORGANISER_PANEL)


@seasons.command("new")
def season_new(
    name: NameArgument,
    hparams: HparamsOption = None,
    world: WorldOption = None,
    hardware: Annotated[
        str | None, typer.Option(help="Class of the main board. Default: this machine's.")
    ] = None,
    peak: Annotated[
        float | None,
        typer.Option(
            min=0, help="TFLOPS of one device. Default: the benchmark's, or as measured here."
        ),
    ] = None,
    rule: Annotated[
        Path | None, typer.Option(help="JSON file with fields of the scoring rule.")
    ] = None,
    starts: Annotated[datetime | None, typer.Option(help="UTC. Default: now.")] = None,
    ends: Annotated[datetime | None, typer.Option(help="UTC. Default: when it is closed.")] = None,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Open a season: one benchmark, one class of hardware, one rule. None of them changes later.

    [dim]validator season new autumn --ends 2026-12-31[/dim]
    """
    from harness.benchmark.hparams import load_hparams
    from harness.board.hardware import fixed_peak, this_hardware
    from harness.board.organise import SeasonPlan, open_season

    loaded = load_hparams(hparams)
    world_size = world or loaded.hparams.world.size
    fields = _rule(rule).model_copy(
        update={"peak_tflops": peak or fixed_peak(loaded.hparams, world_size)}
    )
    plan = SeasonPlan(
        name=name,
        hparams_sha256=loaded.sha256,
        benchmark=loaded.hparams.name,
        world_size=world_size,
        hardware=hardware or this_hardware(loaded.hparams, world_size),
        rule=fields,
        starts_at=_seconds(starts),
        ends_at=_seconds(ends),
    )
    with opened(data, store) as board:
        open_season(board, plan)
    typer.echo(f"season {name} is open; none of this changes any more:")
    for line in plan.words():
        typer.echo(f"  {line}")
    if not loaded.hparams.calibrated:
        typer.echo(
            "  the benchmark is not calibrated: its tolerances are guesses, and every result says so",
            err=True,
        )


@seasons.command("list")
def season_list(data: DataOption = None, store: StoreOption = None) -> None:
    """Every season, with its benchmark, hardware and dates."""
    from rich.console import Console

    from harness.board.tell import seasons_table
    from harness.board.views import seasons_view

    with opened(data, store) as board, board.read() as session:
        found = seasons_view(session)
    Console().print(seasons_table(found) if found else "no season yet: `validator season new`")


@seasons.command("show")
def season_show(
    name: Annotated[
        str | None, typer.Argument(help="Default: the only one that is open, or the newest.")
    ] = None,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """All that a season fixes: benchmark, ranks, hardware, dates, and every field of its rule.

    [dim]validator season show autumn[/dim]
    """
    from rich.console import Console

    from harness.board.organise import the_season
    from harness.board.tell import season_story
    from harness.board.views import season_view

    with opened(data, store) as board, board.read() as session:
        now = board.now()
        found = season_view(session, the_season(session, name, now).name)
        story = season_story(found, now)
    Console().print(story)


@seasons.command("close")
def season_close(name: NameArgument, data: DataOption = None, store: StoreOption = None) -> None:
    """Take no more submissions; what was handed in is judged still."""
    from harness.board.organise import close_season

    with opened(data, store) as board:
        close_season(board, name)
    typer.echo(f"season {name} is closed")


def _rule(path: Path | None) -> "ScoringRule":
    """The scoring rule of a file; the default one without. Raises InputError(BAD_ARGUMENT)."""
    from pydantic import ValidationError

    from harness.board.rule import ScoringRule

    if path is None:
        return ScoringRule()
    try:
        return ScoringRule.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(Code.BAD_ARGUMENT, f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(Code.BAD_ARGUMENT, f"{path}: {where}: {first['msg']}") from None


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()
