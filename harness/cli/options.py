"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

HparamsOption = Annotated[
    Path | None,
    typer.Option(
        "--hparams",
        metavar="FILE_OR_NAME",
        help="The benchmark: a file, or a name that `benchmarks` lists. Default: $TRAINJUDGE_HPARAMS "
        "or hparams.json.",
    ),
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
ProfileOption = Annotated[
    Path | None,
    typer.Option(
        help="Record one more run, off the clock: rank 0's Chrome trace goes to this file, those of others "
        "beside it."
    ),
]
LEVELS_HELP = "auto, docker, bubblewrap, user or none: how the train file is isolated."
WorldOption = Annotated[
    int | None, typer.Option("--world", min=1, help="Ranks. Default: the benchmark's.")
]
FleetOption = Annotated[
    str | None,
    typer.Option(
        "--fleet",
        metavar="ADDRESS",
        help="Measure on all nodes of a fleet (HOST:PORT of its head).",
    ),
]
HardwareOption = Annotated[
    str, typer.Option(help="With --fleet: the nodes' hardware class, where there are several.")
]
AgentsOption = Annotated[
    str | None,
    typer.Option(
        "--agents",
        metavar="HOST:PORT,...",
        envvar="TRAINJUDGE_AGENTS",
        help="Agents of the machines on which the ranks run, in the order of the ranks.",
    ),
]
AgentsKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--agents-key",
        envvar="TRAINJUDGE_AGENTS_KEY",
        help="The file that this judge and the agents share.",
    ),
]
NameArgument = Annotated[str, typer.Argument(help="Letters, digits, dot, hyphen, underscore.")]
FileArgument = Annotated[Path, typer.Argument(help="The train file.")]

BOARD_PANEL = "Leaderboard"
ORGANISER_PANEL = "Leaderboard, for organisers"
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="The board's folder. Default: $TRAINJUDGE_DATA or the user's data folder."
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="The database, such as postgresql://user@host/name. Default: $TRAINJUDGE_STORE or a "
        "SQLite file in the board's folder.",
    ),
]
SeasonOption = Annotated[
    str | None, typer.Option("--season", help="Which one. Default: the only one that is open.")
]
IdArgument = Annotated[int, typer.Argument(min=1, help="The submission's number.")]
