"""Commands about this machine: `doctor` and `clean`."""

from typing import Annotated

import typer

from harness.cli.statuses import DEFECT
from harness.errors import Code, JudgeError


def add_to(app: typer.Typer) -> None:
    """Make `doctor` and `clean` commands of `app`."""
    app.command()(doctor)
    app.command()(clean)


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
    from harness.host.doctor import examine, render

    report = examine()
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        Console().print(render(report))


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
    from harness.host.leftovers import clean_up

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

    from harness.escapes.probe import probe_all
    from harness.escapes.report import render

    report = probe_all(lambda line: typer.echo(line, err=True))
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        Console().print(render(report))
    return 0 if report.holds else DEFECT
