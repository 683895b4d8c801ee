"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
WorldOption = Annotated[
    int | None, typer.Option("--world", min=1, help="Ranks. Default: the benchmark's.")
]
FileArgument = Annotated[Path, typer.Argument(help="The train file.")]
