"""Commands of who runs a competition: authors, workers, the store, what becomes of entries."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    LEVELS_HELP,
    ORGANISER_PANEL,
    DataOption,
    HparamsOption,
    IdArgument,
    ImageOption,
    NameArgument,
    SnapshotOption,
    StoreOption,
)
from harness.cli.statuses import on_ending_signals
from harness.cli.store import opened
from harness.errors import Code, InputError

if TYPE_CHECKING:
    from harness.benchmark.hparams import LoadedHparams
    from harness.benchmark.snapshot import Snapshot
    from harness.board.filling import Wanted
    from harness.sandbox import Sandbox

authors = typer.Typer(no_args_is_help=True, help="Who takes part: add, list, revoke.")
stores = typer.Typer(no_args_is_help=True, help="The database: check, gc, backup.")
WhyOption = Annotated[str, typer.Option("--why", help="The reason; everybody can read it.")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    for command in (worker, invalidate, release, rejudge):
        app.command(rich_help_panel=ORGANISER_PANEL)(command)
    for name, group in (("author", authors), ("store", stores)):
        app.add_typer(group, name=name, rich_help_panel=ORGANISER_PANEL)


@authors.command("add")
def author_add(name: NameArgument, data: DataOption = None, store: StoreOption = None) -> None:
    """A new author, or a further key of one that is there. The key is shown once.

    [dim]validator author add ada[/dim]
    """
    from harness.board.organise import add_author, has_author, new_key

    with opened(data, store) as board:
        known = has_author(board, name)
        key = new_key(board, name) if known else add_author(board, name)
    which = "further key" if known else "key"
    others = "; the others stay valid" if known else ""
    typer.echo(f"{which} of {name}, shown this once and kept nowhere{others}:", err=True)
    typer.echo(key)


@authors.command("list")
def author_list(data: DataOption = None, store: StoreOption = None) -> None:
    """Everybody, with the beginnings of their valid keys."""
    from rich.console import Console

    from harness.board.people import authors_view
    from harness.board.tell import authors_table

    with opened(data, store) as board, board.read() as session:
        found = authors_view(session)
    Console().print(authors_table(found) if found else "no author yet: `validator author add`")


@authors.command("revoke")
def author_revoke(
    name: NameArgument,
    key: Annotated[
        str | None, typer.Option(help="The key, or how it begins. Default: all.")
    ] = None,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Make keys of an author worthless, at once."""
    from harness.board.organise import revoke_keys

    with opened(data, store) as board:
        count = revoke_keys(board, name, key)
    typer.echo(f"{count} key(s) of {name} revoked")


def invalidate(
    submission: IdArgument, why: WhyOption, data: DataOption = None, store: StoreOption = None
) -> None:
    """Take a submission off the board; the lead goes back to whom it belongs.

    [dim]validator invalidate 17 --why "trains on the held-out rows"[/dim]
    """
    from harness.board.organise import invalidate

    with opened(data, store) as board:
        invalidate(board, submission, why)
    typer.echo(f"submission {submission} is invalidated")


def release(
    submission: IdArgument, why: WhyOption, data: DataOption = None, store: StoreOption = None
) -> None:
    """Let a submission be ranked that waits for you, or that was invalidated by mistake.

    Of a leader that was rejected in a paired run: let it be compared with again.
    """
    from harness.board.organise import release

    with opened(data, store) as board:
        release(board, submission, why)
    typer.echo(f"submission {submission} can be ranked")


def rejudge(
    submission: IdArgument,
    why: WhyOption,
    hparams: HparamsOption = None,
    snapshot: SnapshotOption = None,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Judge again what a worker of this machine has kept, by today's checks; nothing is trained.

    The new outcome takes the place of the old one, which stays in the history.

    [dim]validator rejudge 17 --why "tolerances calibrated anew"[/dim]
    """
    from harness.board.again import Again, rejudge
    from harness.board.artefacts import Artefacts, kept_folder

    artefacts = Artefacts(kept_folder(data), 0)
    with opened(data, store) as board:
        before, now = rejudge(board, submission, Again(hparams, snapshot, artefacts), why)
    typer.echo(f"submission {submission} was {before.verdict} ({before.code})")
    typer.echo(f"and is {now.verdict} ({now.code}): {now.message}")


def worker(
    hparams: HparamsOption = None,
    sandbox: Annotated[str, typer.Option(help=LEVELS_HELP)] = "auto",
    image: ImageOption = None,
    snapshot: SnapshotOption = None,
    once: Annotated[bool, typer.Option(help="End where nothing waits.")] = False,
    keep_gib: Annotated[
        float | None,
        typer.Option(
            "--keep-gib",
            min=0,
            help="Keep evaluations for `rejudge`, the newest of this size; 0 removes what was kept. "
            "Default: keep none, and leave what is there.",
        ),
    ] = None,
    bank: Annotated[
        int,
        typer.Option(
            min=0,
            help="Keep so many challenges trained on ahead, while nothing waits (`bank fill`).",
        ),
    ] = 0,
    bank_gib: Annotated[
        float,
        typer.Option("--bank-gib", min=0.001, help="The bank of all benchmarks gets no larger."),
    ] = 20.0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds for the evaluation at hand after SIGTERM.")
    ] = 600.0,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Judge what waits, one after the other, until SIGTERM or Ctrl-C.

    The first signal lets the evaluation at hand finish, a second one gives it back at once.

    [dim]validator worker --sandbox docker[/dim]
    """
    from harness.api import ready_snapshot
    from harness.benchmark.hparams import load_hparams
    from harness.board.artefacts import Artefacts, kept_folder
    from harness.board.stopping import Stop
    from harness.board.worker import Job, work
    from harness.report import ProgressDisplay
    from harness.sandbox import choose

    loaded = load_hparams(hparams)
    options = ["--sandbox", sandbox]
    options += ["--image", image] if image else []
    options += ["--snapshot", str(snapshot)] if snapshot else []
    stop = Stop(grace)
    on_ending_signals(lambda number, frame: stop.request())
    artefacts = None if keep_gib is None else Artefacts(kept_folder(data), int(keep_gib * 2**30))
    with opened(data, store) as board, ProgressDisplay() as progress:
        # What cannot work fails here, and not with somebody's submission in hand.
        chosen = choose(sandbox, image=image, hparams_sha256=loaded.sha256)
        ready = ready_snapshot(loaded, snapshot, progress)
        progress.line(f"working for {loaded.hparams.name}")
        job = Job(
            loaded.path,
            loaded.sha256,
            tuple(options),
            once,
            artefacts,
            together=loaded.hparams.together,
            bank=_wanted(bank, bank_gib, loaded, ready, chosen, options),
        )
        count = work(board, job, stop, progress.line)
    typer.echo(f"{count} evaluation(s) finished")


def _wanted(
    count: int,
    gib: float,
    loaded: "LoadedHparams",
    snapshot: "Snapshot",
    sandbox: "Sandbox",
    options: Sequence[str],
) -> "Wanted | None":
    """What a worker keeps in the bank; nothing where nobody asked for it."""
    if not count:
        return None
    from harness.bank.kind import kind_of
    from harness.bank.store import Bank
    from harness.board.filling import Wanted
    from harness.machine import pick_device

    if sandbox.level == "none":
        raise InputError(Code.BAD_ARGUMENT, "at level none no bank is used: take another one")
    hparams = loaded.hparams

    @cache  # a worker that waits asks every two seconds
    def kind(world_size: int) -> str:
        device = pick_device(hparams.world.device, world_size)
        return kind_of(hparams, snapshot, sandbox, world_size, device)

    ahead = ("--hparams", str(loaded.path), "--limit", str(gib), *options)
    return Wanted(Bank(), kind, count, ahead)


@stores.command("check")
def store_check(data: DataOption = None, store: StoreOption = None) -> None:
    """Replay every event and compare; verify hashes of sources and results. Changes nothing."""
    from harness.board.maintenance import check

    with opened(data, store) as board:
        report = check(board)
    for problem in report.problems:
        typer.echo(problem)
    typer.echo(report.summary)
    raise typer.Exit(1 if report.problems else 0)


@stores.command("gc")
def store_gc(data: DataOption = None, store: StoreOption = None) -> None:
    """Remove sources and results that no event names, and workers that are long gone."""
    from harness.board.maintenance import collect_garbage

    with opened(data, store) as board:
        typer.echo(collect_garbage(board))


@stores.command("backup")
def store_backup(
    file: Annotated[Path, typer.Argument(help="A new file.")],
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Copy the store while it is in use: a SQLite file, or what pg_restore reads."""
    from harness.board.backup import back_up

    with opened(data, store) as board:
        back_up(board.engine, file)
    typer.echo(f"backup in {file}")
