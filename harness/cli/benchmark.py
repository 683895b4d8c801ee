"""Commands about benchmarks: `benchmarks`, `benchmark new`, `preload`, `calibrate`, `power` and `flops`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.fleet import on_fleet
from harness.cli.options import (
    FleetOption,
    HardwareOption,
    HparamsOption,
    ImageOption,
    SnapshotOption,
)

#: Tokens in a row where nothing says how many.
DEFAULT_ROW = 1024

own = typer.Typer(no_args_is_help=True, help="A benchmark of one's own.")


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    app.command()(benchmarks)
    app.add_typer(own, name="benchmark")
    app.command()(preload)
    app.command()(calibrate)
    app.command()(power)
    app.command()(flops)


def benchmarks(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the benchmarks that can be named: what each asks for, and whether it is ready here.

    [dim]validator benchmarks[/dim]

    [dim]validator run my_train.py --hparams embedded-adamw[/dim]
    """
    from pydantic import TypeAdapter
    from rich.console import Console

    from harness.benchmark.listing import BenchmarkAtHand, list_benchmarks, render

    found = list_benchmarks()
    if json:
        documents = TypeAdapter(tuple[BenchmarkAtHand, ...])
        typer.echo(documents.dump_json(found, indent=2).decode())
    else:
        Console().print(render(found))


@own.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Letters, digits, dot, hyphen, underscore.")],
    model: Annotated[
        str,
        typer.Option(
            help="Of the hub (owner/name, owner/name@commit), a folder, or a config.json."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(help="Of the hub (owner/name:file, owner/name@commit:file), or a file here."),
    ],
    sequence_length: Annotated[int, typer.Option("--sequence-length", help="Tokens in a row.")],
    global_batch: Annotated[
        int, typer.Option("--global-batch", help="Rows of a step over all ranks.")
    ] = 16,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "adamw",
    lr: Annotated[float, typer.Option(help="Its learning rate.")] = 1e-3,
    compute_dtype: Annotated[
        str | None,
        typer.Option(
            "--compute-dtype",
            help="Lowest precision of products: float32, bfloat16. Default: bfloat16 on GPUs.",
        ),
    ] = None,
    world: Annotated[
        int | None, typer.Option("--world", min=1, help="Ranks. Default: the GPUs here, or 2.")
    ] = None,
    random_init: Annotated[
        bool, typer.Option("--random-init", help="Draw weights, though the model has some.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, for a config.json alone.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="The file. Default: NAME.json here.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help="Hub token for gated models.")
    ] = None,
) -> None:
    """Write the hparams file of a new benchmark, with every field, and say what comes next.

    [dim]validator benchmark new mine --model Qwen/Qwen3-0.6B --data OWNER/NAME:FILE.parquet
    --sequence-length 1024[/dim]

    [dim]validator benchmark new small --model config.json --tokenizer tokenizer.json
    --data text.txt.gz --sequence-length 256[/dim]
    """
    from harness.benchmark.new import Wish, new_benchmark, next_steps

    wish = Wish(
        name=name,
        model=model,
        data=data,
        sequence_length=sequence_length,
        global_batch=global_batch,
        tokenizer=tokenizer,
        random_init=random_init,
        optimizer=optimizer,
        lr=lr,
        compute_dtype=compute_dtype,
        world_size=world,
        token=token,
    )
    file = to or Path(f"{name}.json")
    typer.echo(next_steps(new_benchmark(wish, file), file))


def preload(
    hparams: HparamsOption = None,
    snapshot: SnapshotOption = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help="Hub token for gated models.")
    ] = None,
) -> None:
    """Make the snapshot that evaluations use: model, tokenizer, packed tokens, hashes of everything.

    [dim]validator preload[/dim]

    [dim]validator preload --hparams qwen3-30b-a3b[/dim]
    """
    from harness.benchmark.hparams import load_hparams
    from harness.benchmark.preload import preload as make

    made = make(load_hparams(hparams), snapshot, token, lambda line: typer.echo(line, err=True))
    typer.echo(made.directory)


def calibrate(
    hparams: HparamsOption = None,
    runs: Annotated[int, typer.Option(min=6, max=1000, help="Challenges for each variant.")] = 24,
    false_alarms: Annotated[
        float,
        typer.Option(
            min=1e-6, max=0.1, help="Part of honest evaluations that may be rejected, at most."
        ),
    ] = 0.001,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    image: ImageOption = None,
    only: Annotated[str, typer.Option(help="Variants whose names contain this.")] = "",
    add: Annotated[
        bool, typer.Option("--add", help="To what was measured of this benchmark before.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Measure nothing: conclude anew from what was, as with other false alarms.",
        ),
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(help="File that gets what was measured; runs that it holds count too."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print, and change nothing.")] = False,
    snapshot: SnapshotOption = None,
    fleet: FleetOption = None,
    hardware: HardwareOption = "",
) -> None:
    """Measure the noise of honest runs and write the tolerances, with their evidence, into hparams.

    [dim]validator calibrate[/dim]

    [dim]validator calibrate --add --only "near ties" --runs 20[/dim]

    [dim]validator calibrate --again --false-alarms 0.01 --dry-run[/dim]
    """
    from harness.api import calibrate_benchmark

    if again and (only or add):
        raise typer.BadParameter("--again measures nothing: leave --add and --only out")
    if only and not (add or json):
        raise typer.BadParameter("--only needs --add or --json: tolerances rest on all variants")
    measure = partial(
        calibrate_benchmark,
        hparams,
        snapshot,
        sandbox,
        image,
        runs,
        false_alarms,
        write=not dry_run,
        only=only,
        add=add,
        again=again,
        output=json,
    )
    if fleet is None or again:
        measure()
        return
    with on_fleet(fleet, hardware) as there:
        measure(elsewhere=partial(there.calibrate, runs=runs, only=only))


def power(
    hparams: HparamsOption = None,
    family: Annotated[
        list[str] | None,
        typer.Option(
            help="Of cheats: a name; one with a part (top_1=0.1); or several such with + between them, "
            "all at once. May be repeated. Default: all."
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="Challenges for each cheat; 0: judge what the file holds, anew."
        ),
    ] = 4,
    json: Annotated[
        Path | None,
        typer.Option(help="File that gets what was measured; runs that it holds count too."),
    ] = None,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    image: ImageOption = None,
    snapshot: SnapshotOption = None,
    fleet: FleetOption = None,
    hardware: HardwareOption = "",
) -> None:
    """Measure what can be left out unseen: graded cheats, and how often each is found.

    [dim]validator power --family last_positions --runs 8 --json power.json[/dim]

    [dim]validator power --family lowest_loss_tokens=0.25+layer_gradients=0.15[/dim]
    """
    from harness.api import measure_power

    asked = family or []
    measure = partial(measure_power, hparams, snapshot, sandbox, image, asked, runs, json)
    if fleet is None or not runs:
        measure()
        return
    with on_fleet(fleet, hardware) as there:
        measure(elsewhere=partial(there.power, runs=runs, families=tuple(asked)))


def flops(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL_OR_CONFIG", help="config.json, hparams file or hub model."),
    ],
    sequence_length: Annotated[
        int | None,
        typer.Option(
            "--sequence-length",
            min=1,
            help="Tokens in a row, for attention. Default: the hparams file's, or 1024.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Count a model's parameters, active parameters and FLOPs per token.

    [dim]validator flops hparams.json[/dim]

    [dim]validator flops Qwen/Qwen3-30B-A3B --sequence-length 4096[/dim]
    """
    from json import dumps

    from rich.console import Console

    from harness.benchmark.model_config import load_config, row_length
    from harness.score.flops import count_parameters, document, render

    count = count_parameters(load_config(source))
    length = sequence_length or row_length(source) or DEFAULT_ROW
    if json:
        typer.echo(dumps(document(count, length), indent=2))
    else:
        Console().print(render(count, length))
