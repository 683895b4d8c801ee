"""What the validator will do with your train file, on your own machine.

    python local_test/simulate_validator.py submissions/train_ep.py
    python local_test/simulate_validator.py my_train.py --world 1 --runs 1
    python local_test/simulate_validator.py my_train.py --sandbox docker   (as in production)
    python local_test/simulate_validator.py my_train.py --profile trace.json

The same code path and thresholds as `validator run`; afterwards it says when the hardware is not the
benchmark's.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed

from harness.installed import require_packages

require_packages()

import typer  # noqa: E402

from harness.api import check_trace, judge_file, show_profile  # noqa: E402
from harness.benchmark.hparams import load_hparams  # noqa: E402
from harness.cli.options import LEVELS_HELP, HparamsOption, ImageOption, ProfileOption  # noqa: E402
from harness.cli.statuses import exit_statuses  # noqa: E402
from harness.report import print_result  # noqa: E402
from harness.results import result_file, store  # noqa: E402

if TYPE_CHECKING:
    from harness.benchmark.hparams import Hparams
    from harness.machine import Machine


def simulate(
    file: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="Your train file.")],
    hparams: HparamsOption = None,
    world: Annotated[int | None, typer.Option(min=1, help="Ranks.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, max=100, help="Timed runs.")] = None,
    sandbox: Annotated[str, typer.Option(help=LEVELS_HELP)] = "auto",
    image: ImageOption = None,
    profile: ProfileOption = None,
) -> None:
    """Judge SUBMISSION as the validator would."""
    from rich.console import Console

    check_trace(profile)
    path = result_file(file.name)
    result = judge_file(
        file, hparams=hparams, world_size=world, runs=runs, sandbox=sandbox, image=image
    )
    store(result, path)
    print_result(result, path)
    if result.machine is not None:
        remark = other_hardware(load_hparams(hparams).hparams, result.machine)
        if remark is not None:
            Console().print(remark, markup=False, highlight=False)
    if profile is not None:
        show_profile(file, profile, result, hparams=hparams, sandbox=sandbox, image=image)
    raise typer.Exit(result.verdict.exit_status)


def other_hardware(hparams: "Hparams", machine: "Machine") -> str | None:
    """A sentence when this machine is not known to be the benchmark's, or None.

    The hardware of a benchmark is the one that it was calibrated on.
    """
    here = machine.devices[0]
    calibration = hparams.verify.calibration
    if calibration is None:
        return (
            f"hardware: this ran on {here}; the benchmark is not calibrated and names none "
            f"(world.device: {hparams.world.device}), so times and MFU say nothing about its own"
        )
    if calibration.device == here:
        return None
    return (
        f"hardware: this ran on {here}, the benchmark was calibrated on {calibration.device}: "
        "expect another MFU there, and other rounding"
    )


if __name__ == "__main__":
    with exit_statuses():
        typer.run(simulate)
