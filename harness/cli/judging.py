"""Commands about one train file: `init`, `run` and `check`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    LEVELS_HELP,
    AgentsKeyOption,
    AgentsOption,
    FileArgument,
    HparamsOption,
    ImageOption,
    ProfileOption,
    SnapshotOption,
    WorldOption,
)
from harness.errors import Code, InputError


def add_to(app: typer.Typer) -> None:
    """Make `init`, `run` and `check` commands of `app`."""
    app.command()(init)
    app.command()(run)
    app.command()(check)


def init(
    folder: Annotated[Path, typer.Argument(help="New or empty; it gets a train.py.")],
    strategy: Annotated[
        str, typer.Option(help="What the train file starts from, such as ddp, fsdp, tp, ep or pp.")
    ] = "ddp",
    hparams: HparamsOption = None,
) -> None:
    """Start a train file: a commented one of a strategy, and what to run next.

    [dim]validator init my_run --strategy ep[/dim]
    """
    from shlex import quote

    from harness.benchmark.hparams import load_hparams
    from harness.protocol.text import counted
    from harness.submission.example import CONTRACT, start
    from harness.submission.read import read

    world = load_hparams(hparams).hparams.world.size
    started = start(folder, strategy)
    ranks = read(started.file).strategy.world_size or world
    options = "" if hparams is None else f" --hparams {quote(str(hparams))}"
    options += "" if ranks == world else f" --world {ranks}"
    ready = f"{started.file} is {started.origin.name}, for {counted(ranks, 'rank')}"
    typer.echo(f"{ready}; next:")
    for command in ("check", "run"):
        typer.echo(f"  validator {command} {quote(str(started.file))}{options}")
    typer.echo(f"what it has to define, and what it is given: {CONTRACT}")


def run(
    file: FileArgument,
    hparams: HparamsOption = None,
    world: WorldOption = None,
    runs: Annotated[
        int | None, typer.Option(min=1, max=100, help="Timed runs. Default: the benchmark's.")
    ] = None,
    sandbox: Annotated[str, typer.Option(help=LEVELS_HELP)] = "auto",
    image: ImageOption = None,
    json: Annotated[
        str | None,
        typer.Option(
            help="Where the JSON result goes; - is stdout. Default: a new file in results/."
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep challenges and states in this new folder.")
    ] = None,
    snapshot: SnapshotOption = None,
    bank: Annotated[
        bool, typer.Option(help="Take challenges that were trained on ahead (`validator bank`).")
    ] = True,
    profile: ProfileOption = None,
    agents: AgentsOption = None,
    agents_key: AgentsKeyOption = None,
) -> None:
    """Judge a train file: run it in a sandbox, compare it with the reference, compute its MFU.

    [dim]validator run submissions/train_ep.py[/dim]

    [dim]validator run my_train.py --world 1 --runs 1 --json -[/dim]

    [dim]validator run my_train.py --profile trace.json[/dim]

    [dim]validator run my_train.py --agents 10.0.0.2:7700,10.0.0.3:7700 --agents-key key.pem[/dim]
    """
    from harness.api import check_trace, judge_file, show_profile
    from harness.report import print_result
    from harness.results import result_place, store_result

    check_trace(profile)
    if profile is not None and agents:
        raise InputError(
            Code.BAD_ARGUMENT, "a profile is of ranks on one machine: leave one of both"
        )
    printed = json == "-"
    path = None if printed else result_place(file.name, Path(json) if json else None)
    result = judge_file(
        file,
        hparams=hparams,
        world_size=world,
        runs=runs,
        sandbox=sandbox,
        image=image,
        keep=keep,
        snapshot=snapshot,
        bank=bank,
        agents=tuple(each.strip() for each in agents.split(",")) if agents else (),
        agents_key=agents_key,
        quiet=printed,
    )
    if printed:
        typer.echo(result.model_dump_json(indent=2))
    else:
        if path is not None:
            store_result(result, path)
        print_result(result, path)
    if profile is not None:
        show_profile(
            file,
            profile,
            result,
            hparams=hparams,
            sandbox=sandbox,
            image=image,
            snapshot=snapshot,
            quiet=printed,
        )
    raise typer.Exit(result.verdict.exit_status)


def check(
    file: FileArgument,
    hparams: HparamsOption = None,
    world: WorldOption = None,
) -> None:
    """Say what can be said about a train file without running it.

    It helps authors; it is no defence and forbids no Python.

    [dim]validator check my_train.py --world 4[/dim]
    """
    from harness.benchmark.hparams import load_hparams
    from harness.report import print_remarks
    from harness.submission.read import check as remarks_on

    benchmark = load_hparams(hparams).hparams
    remarks = remarks_on(file, world or benchmark.world.size, benchmark.global_batch)
    raise typer.Exit(print_remarks(file, remarks))
