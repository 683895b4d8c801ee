"""Commands of who takes part: hand a file in, see what becomes of it, take it back, see who leads."""

import time
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    BOARD_PANEL,
    DataOption,
    FileArgument,
    IdArgument,
    SeasonOption,
    StoreOption,
)
from harness.cli.remote import InsecureOption, KeyOption, ServerOption
from harness.cli.store import opened
from harness.errors import Code, InputError

LOOK_SECONDS = 0.5
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    for command in (submit, queue, show, log, cancel, leaderboard):
        app.command(rich_help_panel=BOARD_PANEL)(command)


def submit(
    file: FileArgument,
    author: Annotated[
        str | None, typer.Option(help="Whose it is; `validator author add` makes one.")
    ] = None,
    note: Annotated[
        str, typer.Option(help="What is new, for people; at most 500 characters.")
    ] = "",
    season: SeasonOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Hand a train file in; a worker judges it when its turn comes.

    With the store at hand it takes an author's name, at a server the author's key.

    [dim]validator submit my_train.py --author ada --note "fused experts"[/dim]

    [dim]validator submit my_train.py --server https://board.example --key $KEY[/dim]
    """
    if server is not None:
        number = _hand_in_at(server, file, key, note, season, insecure)
        typer.echo(f"submission {number} is queued: validator status {number} --server {server}")
        return
    if author is None:
        raise InputError(
            Code.BAD_ARGUMENT, "whose file is it? --author NAME, or --server and --key"
        )
    from harness.board.submit import Handed, read_file, submit

    handed = Handed(author, file.name, read_file(file), note, season)
    with opened(data, store) as board:
        number = submit(board, handed)
    typer.echo(f"submission {number} is queued; `validator show {number}` says what became of it")


def _hand_in_at(
    server: str, file: Path, key: str | None, note: str, season: str | None, insecure: bool
) -> int:
    from harness.client import submit_to
    from harness.submission.read import read

    if not key:
        raise InputError(Code.KEY_REFUSED, "the server wants your key: --key or $TRAINJUDGE_KEY")
    source = read(file).source
    return submit_to(server, key, file.name, source, note, season, insecure=insecure)


def queue(json: JsonOption = False, data: DataOption = None, store: StoreOption = None) -> None:
    """What runs and what waits, in the order in which it will be judged.

    [dim]validator queue --json[/dim]
    """
    from rich.console import Console

    from harness.board.tell import queue_table
    from harness.board.waiting import QueueView, queue_length, queue_view

    with opened(data, store) as board, board.read() as session:
        entries = queue_view(session)
        length = queue_length(session)
    if json:
        typer.echo(QueueView(length=length, entries=entries).model_dump_json(indent=2))
        return
    Console().print(queue_table(entries) if entries else "nothing runs, and nothing waits")


def show(
    submission: IdArgument,
    json: Annotated[bool, typer.Option("--json", help="The last result document.")] = False,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """What became of a submission: its verdict, and every step on the way.

    [dim]validator show 17 --json[/dim]
    """
    from rich.console import Console

    from harness.board.tell import submission_story
    from harness.board.views import result_document, submission_view
    from harness.report import render

    with opened(data, store) as board, board.read() as session:
        view = submission_view(session, submission, board.now())
        finished = [each.id for each in view.evaluations if each.has_result]
        result = result_document(session, finished[-1]) if finished else None
    if json:
        if result is None:
            raise InputError(Code.NOT_NOW, f"submission {submission} has no result yet")
        typer.echo(result.model_dump_json(indent=2))
        return
    Console().print(submission_story(view))
    if result is not None:
        Console().print(render(result))


def log(
    submission: IdArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until there is a verdict.")
    ] = False,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """What the judge says while it works, and afterwards what the train file printed.

    [dim]validator log 17 --follow[/dim]
    """
    from harness.board.tell import Follower

    with opened(data, store) as board:
        follower = Follower(board, submission)
        while True:
            for line in follower.new_lines():
                typer.echo(line)
            if follower.over or not follow:
                break
            time.sleep(LOOK_SECONDS)


def cancel(submission: IdArgument, data: DataOption = None, store: StoreOption = None) -> None:
    """Take a submission back that waits or runs. It counts for nothing.

    [dim]validator cancel 17[/dim]
    """
    from harness.board.submit import cancel

    with opened(data, store) as board:
        cancel(board, submission)
    typer.echo(f"submission {submission} is cancelled")


def leaderboard(
    season: SeasonOption = None,
    all_entries: Annotated[
        bool, typer.Option("--all", help="Every submission, also what is not ranked, and why.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows.")] = 25,
    json: JsonOption = False,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Who leads, and by how much.

    [dim]validator leaderboard --all --limit 100[/dim]
    """
    from rich.console import Console

    from harness.board.leaderboard import rank_season
    from harness.board.organise import the_season
    from harness.board.rows import listing
    from harness.board.tell import board_table

    with opened(data, store) as board:
        with board.read() as session:
            found = the_season(session, season)
        ranking = rank_season(board, found.id)
        if json:
            with board.read() as session:
                listed = listing(session, found.name, ranking, limit=limit, all_entries=all_entries)
            typer.echo(listed.model_dump_json(indent=2))
            return
    Console().print(board_table(found.name, ranking, limit=limit, all_entries=all_entries))
