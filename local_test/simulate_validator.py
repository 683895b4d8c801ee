"""What the validator will do with your train file, on your own machine.

    python local_test/simulate_validator.py submissions/train_ep.py
    python local_test/simulate_validator.py my_train.py --world 1 --runs 1

The same code path and thresholds as `validator run`; afterwards it shows where the time went.
"""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import HparamsOption, exit_statuses
from harness.report import phases_table, print_result, result_file, store
from harness.simulate import judge_file


def simulate(
    file: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="Your train file.")],
    hparams: HparamsOption = None,
    world: Annotated[int | None, typer.Option(min=1, help="Ranks.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, max=100, help="Timed runs.")] = None,
    sandbox: Annotated[str, typer.Option(help="auto, bubblewrap, user or none.")] = "auto",
) -> None:
    """Judge SUBMISSION as the validator would."""
    from rich.console import Console

    path = result_file(file.name)
    result = judge_file(file, hparams=hparams, world_size=world, runs=runs, sandbox=sandbox)
    store(result, path)
    print_result(result, path)
    Console().print(phases_table(result))
    raise typer.Exit(result.verdict.exit_status)


if __name__ == "__main__":
    with exit_statuses():
        typer.run(simulate)
