"""The group `agent`: what runs ranks on one of several machines for a judge on another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import ORGANISER_PANEL, SnapshotOption
from harness.errors import Code, InputError

if TYPE_CHECKING:
    from harness.benchmark.hparams import LoadedHparams

agents = typer.Typer(
    no_args_is_help=True, help="One evaluation on several machines: what runs on each of them."
)


def add_to(app: typer.Typer) -> None:
    """Make the group a command of `app`."""
    app.add_typer(agents, name="agent", rich_help_panel=ORGANISER_PANEL)


@agents.command()
def key(
    file: Annotated[Path, typer.Argument(help="A new file, for the judge and all agents.")],
) -> None:
    """Make the key by which judge and agents know each other. Copy it to all of them, mode 0600.

    [dim]validator agent key agents.pem[/dim]
    """
    from harness.nodes.key import make_key

    make_key(file)
    typer.echo(f"{file}: whoever has it can run ranks on every machine that has it too")


@agents.command()
def serve(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the judge reaches this machine.")
    ],
    key: Annotated[Path, typer.Option(help="The file that `validator agent key` made.")],
    hparams: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE_OR_NAME", help="The benchmark; several times for several."),
    ] = None,
    fabric: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="This machine's IPv4 address on the network over which ranks talk. Default: HOST.",
        ),
    ] = None,
    snapshot: SnapshotOption = None,
) -> None:
    """Run the ranks of one machine, until SIGTERM or Ctrl-C. As root, at level bubblewrap.

    [dim]validator agent serve --listen 10.0.0.2:7700 --key agents.pem[/dim]
    """
    from harness.api import ready_snapshot
    from harness.benchmark.hparams import load_hparams
    from harness.host.leftovers import clean_up
    from harness.nodes.agent import Agent
    from harness.nodes.node import host_and_port
    from harness.report import ProgressDisplay
    from harness.sandbox import Level, choose
    from harness.sandbox.fabric import unavailable

    host, port = host_and_port(listen)
    if (why := unavailable()) is not None:
        raise InputError(Code.SANDBOX_UNAVAILABLE, why)
    sandbox = choose(Level.BUBBLEWRAP)
    for name in clean_up().removed:
        typer.echo(f"left behind by one that was killed, removed: {name}")
    with ProgressDisplay() as progress:
        benchmarks = [load_hparams(each) for each in hparams] if hparams else [load_hparams(None)]
        held = tuple((loaded, ready_snapshot(loaded, snapshot, progress)) for loaded in benchmarks)
    _import_ahead([loaded for loaded, _ in held])
    agent = Agent(held, sandbox, fabric or host, key, typer.echo)
    names = ", ".join(loaded.hparams.name for loaded, _ in held)
    agent.serve(host, port, lambda found: typer.echo(f"agent of {names} on {host}:{found}"))


def _import_ahead(benchmarks: list["LoadedHparams"]) -> None:
    """What is imported to look at a GPU takes seconds, in which a judge would not be heard."""
    from harness import machine

    for loaded in benchmarks:
        world = loaded.hparams.world
        device = machine.pick_device(world.device, world.ranks_per_node)
        machine.describe(device, world.ranks_per_node)
