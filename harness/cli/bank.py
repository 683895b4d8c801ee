"""Commands about the bank: challenges whose references are trained ahead."""

from typing import Annotated

import typer

from harness.cli.fleet import on_fleet
from harness.cli.options import (
    FleetOption,
    HardwareOption,
    HparamsOption,
    ImageOption,
    SnapshotOption,
    WorldOption,
)
from harness.errors import Code, InputError

banks = typer.Typer(
    no_args_is_help=True,
    help="Challenges whose references are trained ahead, so that an evaluation need not wait for its own.",
)


def add_to(app: typer.Typer) -> None:
    """Make `bank` a group of `app`."""
    app.add_typer(banks, name="bank")


@banks.command("fill")
def fill(
    count: Annotated[int, typer.Option(min=1, max=10_000, help="So many unused ones are wanted.")],
    hparams: HparamsOption = None,
    world: WorldOption = None,
    idle: Annotated[
        bool, typer.Option("--idle", help="One by one, while nothing else uses this machine.")
    ] = False,
    limit: Annotated[
        float, typer.Option(min=0.001, help="GiB that the bank of all benchmarks may have.")
    ] = 20.0,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    image: ImageOption = None,
    snapshot: SnapshotOption = None,
    fleet: FleetOption = None,
    hardware: HardwareOption = "",
) -> None:
    """Draw challenges and train the reference on them, until so many are unused.

    [dim]validator bank fill --count 20[/dim]

    [dim]validator bank fill --count 100 --world 4 --idle[/dim]
    """
    if fleet is not None:
        from harness.benchmark.hparams import load_hparams

        with on_fleet(fleet, hardware) as there:
            filled = there.fill_banks(load_hparams(hparams), world, count, round(limit * 2**30))
        typer.echo(f"{count} unused on each of {filled} nodes")
        return
    from harness.api import fill_bank

    added, unused = fill_bank(
        hparams, snapshot, sandbox, image, world, count, round(limit * 2**30), idle=idle
    )
    typer.echo(f"{added} added; unused and fit for this benchmark, world and machine: {unused}")


@banks.command("list")
def show() -> None:
    """What is unused, and how large it is.

    [dim]validator bank list[/dim]
    """
    from rich.console import Console
    from rich.table import Table

    from harness.bank.store import Bank

    entries = Bank().entries()
    table = Table("id", "benchmark", "ranks", "steps", "made", "trained in", "MiB", box=None)
    for entry in entries:
        table.add_row(
            entry.id,
            entry.benchmark,
            str(entry.world_size),
            str(entry.steps),
            entry.made_at,
            f"{entry.seconds:.0f} s",
            f"{entry.size_bytes / 2**20:.1f}",
        )
    if entries:
        Console().print(table)
    whole = sum(entry.size_bytes for entry in entries) / 2**30
    typer.echo(f"{len(entries)} unused, {whole:.2f} GiB")


@banks.command("drop")
def drop(
    ids: Annotated[list[str] | None, typer.Argument(help="As `bank list` has them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Remove unused ones.

    [dim]validator bank drop --all[/dim]
    """
    from harness.bank.store import Bank

    if bool(ids) == every:
        raise InputError(Code.BAD_ARGUMENT, "name what is to be dropped, or say --all")
    bank = Bank()
    dropped = bank.drop(ids or [entry.id for entry in bank.entries()])
    freed = sum(entry.size_bytes for entry in dropped) / 2**30
    typer.echo(f"{len(dropped)} dropped, {freed:.2f} GiB")
