"""Commands about judges on many machines: `dispatch`, and the group `fleet`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    LEVELS_HELP,
    ORGANISER_PANEL,
    DataOption,
    HparamsOption,
    ImageOption,
    SnapshotOption,
    StoreOption,
)
from harness.cli.statuses import on_ending_signals
from harness.cli.store import opened
from harness.errors import Code, InputError

if TYPE_CHECKING:
    from harness.fleet.measured import OnFleet
    from harness.fleet.offer import Node

fleets = typer.Typer(
    no_args_is_help=True, help="Judges on many machines, on Ray: join, status, drain."
)
AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="Of the fleet's head, HOST:PORT.")
]
GraceOption = Annotated[
    float, typer.Option(min=0, help="Seconds for what is judged at SIGTERM or Ctrl-C.")
]


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    app.command(rich_help_panel=ORGANISER_PANEL)(dispatch)
    app.add_typer(fleets, name="fleet", rich_help_panel=ORGANISER_PANEL)


def dispatch(
    fleet: Annotated[
        str, typer.Option("--fleet", metavar="ADDRESS", help="The fleet's head, HOST:PORT.")
    ],
    hparams: HparamsOption = None,
    once: Annotated[bool, typer.Option(help="End where nothing waits that a node is for.")] = False,
    canary: Annotated[
        Path | None,
        typer.Option(
            help="An exemplary train file that every node judges at intervals, so that nodes can be "
            "compared. Default: none."
        ),
    ] = None,
    canary_hours: Annotated[
        float, typer.Option("--canary-hours", min=0.01, help="From one canary to the next.")
    ] = 6.0,
    grace: GraceOption = 600.0,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Have the nodes of a fleet judge what waits, until SIGTERM or Ctrl-C.

    The first signal lets evaluations finish, a second one gives them back at once. This machine has to
    be one of the cluster's, such as its head.

    [dim]validator dispatch --fleet 10.0.0.1:6379[/dim]
    """
    from importlib.metadata import version

    from harness.benchmark.hparams import load_hparams
    from harness.board.stopping import Stop
    from harness.board.submit import examine, read_file
    from harness.board.worker import Job
    from harness.fleet.canaries import Canary
    from harness.fleet.cluster import Cluster
    from harness.fleet.dispatch import Benchmark, Dispatcher
    from harness.fleet.head import watched
    from harness.report import ProgressDisplay

    loaded = load_hparams(hparams)
    compared_by = None
    if canary is not None:
        source, world = read_file(canary), loaded.hparams.world.size
        examine(source, world)
        compared_by = Canary(canary.name, source, world, every_seconds=3600 * canary_hours)
    stop = Stop(grace)
    with opened(data, store) as board, ProgressDisplay() as progress:
        cluster = Cluster(fleet)
        on_ending_signals(lambda number, frame: stop.request())  # after Ray, which has its own
        progress.line(f"dispatching {loaded.hparams.name} to the fleet at {fleet}")
        job = Job(loaded.path, loaded.sha256, once=once, together=loaded.hparams.together)
        benchmark = Benchmark(loaded.sha256, loaded.hparams.world.device, compared_by)
        try:
            with watched(fleet):
                count = Dispatcher(
                    board, cluster, job, benchmark, version("trainjudge"), stop, progress.line
                ).run()
        finally:
            cluster.close()
    typer.echo(f"{count} evaluation(s) finished")


@fleets.command("join")
def join(
    address: AddressArgument,
    hparams: Annotated[
        list[Path] | None,
        typer.Option(
            "--hparams",
            metavar="FILE_OR_NAME",
            help="A benchmark that it judges; once for each. Default: as everywhere.",
        ),
    ] = None,
    sandbox: Annotated[str, typer.Option(help=LEVELS_HELP)] = "auto",
    image: ImageOption = None,
    snapshots: Annotated[
        list[str] | None,
        typer.Option(
            "--snapshot-from",
            metavar="ADDRESS",
            help="Where to get a snapshot that is missing, as `fleet share` prints it; once for each.",
        ),
    ] = None,
    grace: GraceOption = 600.0,
) -> None:
    """Make this machine a node: it judges what dispatchers ask it to, until SIGTERM or Ctrl-C.

    The first signal drains it, so that what it judges can finish; a second one ends it at once.

    [dim]validator fleet join 10.0.0.1:6379 --sandbox docker[/dim]
    """
    from harness.benchmark.hparams import load_hparams
    from harness.board.stopping import Stop
    from harness.fleet.head import watched
    from harness.fleet.joining import join, look_around
    from harness.report import ProgressDisplay

    stop = Stop(grace)
    with ProgressDisplay() as progress:
        benchmarks = [load_hparams(each) for each in hparams] if hparams else [load_hparams(None)]
        seat = look_around(benchmarks, sandbox, image, snapshots or (), progress)
        on_ending_signals(lambda number, frame: stop.request())
        with watched(address):
            join(seat, address, stop, progress.line)


@fleets.command("share")
def share(
    folder: Annotated[
        str, typer.Argument(metavar="URL", help="As fsspec has it: file:///mnt/x, s3://bucket/x")
    ],
    hparams: HparamsOption = None,
    snapshot: SnapshotOption = None,
) -> None:
    """Copy a benchmark's snapshot to where nodes get it; prints its address.

    [dim]validator fleet share s3://my-bucket/snapshots[/dim]
    """
    from harness.api import ready_snapshot
    from harness.benchmark.hparams import load_hparams
    from harness.fleet.snapshots import share
    from harness.report import ProgressDisplay

    loaded = load_hparams(hparams)
    with ProgressDisplay() as progress:
        address = share(ready_snapshot(loaded, snapshot, progress), folder, progress.line)
    typer.echo(address)


@fleets.command("status")
def status(
    address: AddressArgument,
    hparams: HparamsOption = None,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """The nodes, what each of them judges, their canaries, and how much waits.

    [dim]validator fleet status 10.0.0.1:6379[/dim]
    """
    from rich.console import Console

    from harness.benchmark.hparams import load_hparams
    from harness.fleet.status import fleet_table, work_of

    loaded = load_hparams(hparams)
    nodes = _nodes(address)
    with opened(data, store) as board:
        Console().print(fleet_table(nodes, work_of(board, loaded.sha256), board.now()))


@fleets.command("drain")
def drain(
    address: AddressArgument,
    node: Annotated[str, typer.Argument(help="As `fleet status` names it, or how it begins.")],
) -> None:
    """Let a node finish what it judges, and then leave.

    [dim]validator fleet drain 10.0.0.1:6379 gpu7[/dim]
    """
    from harness.fleet.cluster import Directory

    found = [each for each in _nodes(address) if each.name.startswith(node)]
    if len(found) != 1:
        which = ", ".join(each.name for each in found) or "none"
        raise InputError(Code.UNKNOWN_ID, f"{node} has to name one node, and names {which}")
    Directory(address).drain(found[0])
    typer.echo(f"{found[0].name} is drained")


@fleets.command("admit")
def admit(
    host: Annotated[str, typer.Argument(help="The machine, as its nodes' names begin.")],
    why: Annotated[str, typer.Option("--why", help="The reason.")],
    hparams: HparamsOption = None,
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Let a machine judge again that its canaries have taken out; they are compared anew from now on.

    [dim]validator fleet admit gpu7 --why "its fan was replaced"[/dim]
    """
    from harness.benchmark.hparams import load_hparams
    from harness.fleet.canaries import admit

    loaded = load_hparams(hparams)
    with opened(data, store) as board:
        if not admit(board, loaded.sha256, host, why):
            raise InputError(Code.NOT_NOW, f"{host} is not excluded")
    typer.echo(f"{host} judges again")


@fleets.command("measure", hidden=True)
def measure(task: Annotated[str, typer.Argument(help="JSON, of a node.")]) -> None:
    """What a node starts for `calibrate`, `power` and `bank fill` with --fleet."""
    from harness.fleet.measuring import Measurement, carry_out
    from harness.report import ProgressDisplay

    with ProgressDisplay() as progress:
        carry_out(Measurement.model_validate_json(task), progress.line)


@contextmanager
def on_fleet(address: str, hardware: str) -> "Iterator[OnFleet]":
    """Measures on the fleet at that address."""
    from harness.cli.statuses import interrupt_on_ending_signals
    from harness.fleet.cluster import Cluster
    from harness.fleet.head import watched
    from harness.fleet.measured import OnFleet
    from harness.report import ProgressDisplay

    cluster = Cluster(address)
    interrupt_on_ending_signals()  # Ray has set handlers of its own
    try:
        with watched(address), ProgressDisplay() as progress:
            yield OnFleet(cluster, hardware, progress.line)
    finally:
        cluster.close()


def _nodes(address: str) -> "tuple[Node, ...]":
    from harness.fleet.cluster import Directory

    return Directory(address).nodes()
