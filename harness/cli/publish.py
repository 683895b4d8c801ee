"""The command that makes files of a board, for readers who have no server of ours."""

import os
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import ORGANISER_PANEL, DataOption, StoreOption
from harness.cli.store import opened
from harness.errors import Code, InputError


def add_to(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    app.command(rich_help_panel=ORGANISER_PANEL)(publish)


def publish(
    to: Annotated[
        str,
        typer.Option("--to", help="A folder, or hf://datasets/ORG/NAME, written with $HF_TOKEN."),
    ],
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """The board and all results as files: page, CSV, Parquet and README.

    A folder is replaced as a whole, and only if this command has made it. A data set gets one commit.

    [dim]validator publish --to site[/dim]
    [dim]validator publish --to hf://datasets/my-org/leaderboard[/dim]
    """
    with opened(data, store) as board:
        from harness.board.publish import publish_to_folder, publish_to_hub
        from harness.board.publish_target import HUB, data_set_name

        if to.startswith(HUB):
            typer.echo(publish_to_hub(board, data_set_name(to), os.environ.get("HF_TOKEN")))
            return
        if "://" in to:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{to!r}: a folder, or hf://datasets/ORG/NAME, can be published to",
            )
        publish_to_folder(board, Path(to), _style())
    typer.echo(f"published to {to}")


def _style() -> str:
    """The CSS of our pages, so that what is published looks like them."""
    from importlib.resources import files

    return (files("harness.web") / "static" / "board.css").read_text(encoding="utf-8")
