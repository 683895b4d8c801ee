"""The command `validator`. Thin: parse, call one room, print, exit with the status of the guilty side.

Heavy imports (torch, transformers, pydantic models) are inside the commands, so that `--help` answers
at once.
"""

from typing import Annotated

import typer

from harness.cli import (
    agents,
    bank,
    benchmark,
    compare,
    fleet,
    host,
    judging,
    organising,
    publish,
    remote,
    seasons,
    serve,
    taking_part,
)
from harness.cli.statuses import exit_statuses

__all__ = ["app", "exit_statuses", "main"]

app = typer.Typer(
    name="validator",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Judges train files: did it really do the training, and how fast?",
    epilog="Exit status: 0 accepted, 1 rejected, 2 bad input, 3 our own failure, 4 no verdict yet.",
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"trainjudge {version('trainjudge')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="Say which, and end."
        ),
    ] = False,
) -> None:
    """Options of `validator` itself; what it is for stands above, with `app`."""


for group in (
    judging,
    compare,
    benchmark,
    bank,
    host,
    taking_part,
    remote,
    seasons,
    organising,
    fleet,
    agents,
    serve,
    publish,
):
    group.add_to(app)


def main() -> None:
    """Entry point of the console script: every failure becomes a line and an exit status."""
    with exit_statuses():
        app(standalone_mode=True)
