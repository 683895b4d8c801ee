"""The command `validator`. Thin: parse, call one room, print, exit with the status of the guilty side.

Heavy imports (torch, transformers, pydantic models) are inside the commands, so that `--help` answers
at once.
"""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from harness.errors import Code, JudgeError, TrainjudgeError

DEFECT = 3
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app = typer.Typer(
    name="validator",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Judges train files: did it really do the training, and how fast?",
    epilog="Exit status: 0 accepted, 1 rejected, 2 bad input, 3 our own failure.",
)

HparamsOption = Annotated[
    Path | None,
    typer.Option("--hparams", help="The benchmark. Default: $TRAINJUDGE_HPARAMS or hparams.json."),
]
SnapshotOption = Annotated[
    Path | None, typer.Option("--snapshot", help="Folder of the preloaded snapshot.")
]
ImageOption = Annotated[
    str | None,
    typer.Option(
        "--image", help="For the sandbox docker. Default: $TRAINJUDGE_IMAGE or validator."
    ),
]
LEVELS_HELP = "auto, docker, bubblewrap, user or none: how the train file is isolated."


def main() -> None:
    """Entry point of the console script: every failure becomes a line and an exit status."""
    with exit_statuses():
        app(standalone_mode=True)


class Interrupted(BaseException):
    """A signal asked us to end. No `Exception`, or an evaluation would make a verdict of it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    # Once is enough: `timeout` sends its signal twice, and the second would interrupt the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted(number)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """Turns our exceptions into one clear message on stderr and the guilty side's exit status.

    A signal that asks us to end becomes an exception too, so that sandboxes and folders are cleaned up:
    `timeout` sends SIGTERM, a closed terminal SIGHUP.
    """
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _interrupt)
    try:
        yield
    except TrainjudgeError as error:
        for line in error.message.splitlines():
            typer.echo(f"validator: {error.code}: {line}", err=True)
        if error.detail:
            typer.echo(error.detail, err=True)
        sys.exit(error.exit_status)
    except Interrupted as signalled:
        typer.echo("validator: interrupted; nothing was left behind", err=True)
        sys.exit(128 + signalled.number)
    except Exception:
        # Status 1 would read as "rejected".
        traceback.print_exc()
        typer.echo("validator: internal: a defect of the judge; please report it", err=True)
        sys.exit(DEFECT)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The train file.")],
    hparams: HparamsOption = None,
    world: Annotated[
        int | None, typer.Option(min=1, help="Ranks. Default: the benchmark's.")
    ] = None,
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
) -> None:
    """Judge a train file: run it in a sandbox, compare it with the reference, compute its MFU.

    [dim]validator run submissions/train_ep.py[/dim]

    [dim]validator run my_train.py --world 1 --runs 1 --json -[/dim]
    """
    from harness.container import result_place, store_result
    from harness.report import print_result
    from harness.simulate import judge_file

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
        quiet=printed,
    )
    if printed:
        typer.echo(result.model_dump_json(indent=2))
    else:
        if path is not None:
            store_result(result, path)
        print_result(result, path)
    raise typer.Exit(result.verdict.exit_status)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The train file.")],
    hparams: HparamsOption = None,
    world: Annotated[
        int | None, typer.Option(min=1, help="Ranks. Default: the benchmark's.")
    ] = None,
) -> None:
    """Say what can be said about a train file without running it.

    It helps authors; it is no defence and forbids no Python.

    [dim]validator check my_train.py --world 4[/dim]
    """
    from harness.report import print_remarks
    from harness.simulate import load_hparams
    from harness.submission import check as remarks_on

    benchmark = load_hparams(hparams).hparams
    remarks = remarks_on(file, world or benchmark.world.size, benchmark.global_batch)
    raise typer.Exit(print_remarks(file, remarks))


@app.command()
def preload(
    hparams: HparamsOption = None,
    snapshot: SnapshotOption = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help="Hub token for gated models.")
    ] = None,
) -> None:
    """Make the snapshot that evaluations use: model, tokenizer, packed tokens, hashes of everything.

    [dim]validator preload[/dim]

    [dim]validator preload --hparams profiles/qwen3-30b-a3b.json[/dim]
    """
    from harness.preload import preload as make
    from harness.simulate import load_hparams

    made = make(load_hparams(hparams), snapshot, token, lambda line: typer.echo(line, err=True))
    typer.echo(made.directory)


@app.command()
def calibrate(
    hparams: HparamsOption = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Challenges for each variant.")] = 8,
    multiple: Annotated[
        float, typer.Option(min=1.5, help="Tolerance = multiple × the worst honest noise.")
    ] = 3.0,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    image: ImageOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, change nothing.")] = False,
    snapshot: SnapshotOption = None,
) -> None:
    """Measure the noise of honest runs and write the tolerances, with their evidence, into hparams.

    [dim]validator calibrate --runs 8[/dim]
    """
    from harness.simulate import calibrate_benchmark

    calibrate_benchmark(hparams, snapshot, sandbox, image, runs, multiple, write=not dry_run)


@app.command()
def flops(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL_OR_CONFIG", help="config.json, hparams file or hub model."),
    ],
    sequence_length: Annotated[
        int, typer.Option("--sequence-length", min=1, help="Tokens in a row, for attention.")
    ] = 1024,
) -> None:
    """Count a model's parameters, active parameters and FLOPs per token.

    [dim]validator flops hparams.json[/dim]

    [dim]validator flops Qwen/Qwen3-30B-A3B --sequence-length 4096[/dim]
    """
    from rich.console import Console

    from harness.flops import count_parameters, load_config, render

    Console().print(render(count_parameters(load_config(source)), sequence_length))


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Try to escape from every level of isolation instead.")
    ] = False,
) -> None:
    """Say what this machine offers: devices and peaks, sandboxes and why one is missing, versions.

    With --probe: what attempts to escape come to at each level (docs/security.md). The exit status is 0
    if every level above none holds, but for its known gaps.

    [dim]validator doctor --json[/dim]

    [dim]validator doctor --probe[/dim]
    """
    from rich.console import Console

    if probe:
        raise typer.Exit(_probe(json))
    from harness.doctor import examine, render

    report = examine()
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        Console().print(render(report))


@app.command()
def clean(
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Also containers of judges that live, or cannot be seen from here."
        ),
    ] = False,
) -> None:
    """Remove the containers and work folders that a judge left behind when it was killed.

    [dim]validator clean[/dim]
    """
    from harness.leftovers import clean_up

    cleaned = clean_up(every)
    for name in cleaned.removed:
        typer.echo(f"removed {name}")
    if cleaned.no_engine:
        typer.echo(f"no containers looked for: {cleaned.no_engine}", err=True)
    if cleaned.kept:
        raise JudgeError(Code.INTERNAL, "something cannot be removed", "\n".join(cleaned.kept))
    if not cleaned.removed:
        typer.echo("nothing to remove")


def _probe(json: bool) -> int:
    """`doctor --probe`; returns the exit status."""
    from rich.console import Console

    from harness.escape_probe import probe_all
    from harness.escape_report import render

    report = probe_all(lambda line: typer.echo(line, err=True))
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        Console().print(render(report))
    return 0 if report.holds else DEFECT


if __name__ == "__main__":
    main()
