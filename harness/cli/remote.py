"""Commands that ask a server, where others work with the store itself."""

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from harness.cli.options import BOARD_PANEL, IdArgument
from harness.errors import JudgeError, Verdict
from harness.protocol.text import one_line

if TYPE_CHECKING:
    from harness.client import RemoteStatus

LOOK_SECONDS: Final = 2.0
#: A server that was there and is gone comes back by then, or somebody has to look after it.
PATIENCE_SECONDS: Final = 300.0
NO_VERDICT: Final = 4
_COLOURS: Final = {Verdict.ACCEPTED: "green", Verdict.REJECTED: "red", Verdict.ERROR: "yellow"}

ServerOption = Annotated[
    str | None, typer.Option("--server", help="Of a leaderboard: https://board.example.org.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="TRAINJUDGE_KEY",
        show_envvar=False,
        help="Your API key. Default: $TRAINJUDGE_KEY, which other users of the machine cannot see.",
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Send the key unencrypted, to a server that is not this machine."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    app.command(rich_help_panel=BOARD_PANEL)(status)


def status(
    submission: IdArgument,
    server: Annotated[
        str, typer.Option("--server", help="Of a leaderboard: https://board.example.org.")
    ],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until there is a verdict.")
    ] = False,
) -> None:
    """What became of a submission at a server: its turn, then phase by phase, then the verdict.

    Exit status: 0 accepted, 1 rejected or invalidated, 3 we failed, 4 there is no verdict (yet).

    [dim]validator status 17 --server https://board.example.org --watch[/dim]
    """
    from harness.client import status_of

    seen = _watch(server, submission) if watch else status_of(server, submission)
    _tell(seen)
    raise typer.Exit(_exit_status(seen))


def _watch(server: str, submission: int) -> "RemoteStatus":
    """Show what happens, until nothing does any more."""
    from harness.client import news, status_of
    from harness.report import ProgressDisplay

    before: RemoteStatus | None = None
    heard = time.monotonic()
    with ProgressDisplay(at_first="asking the server") as display:
        while True:
            try:
                now = status_of(server, submission)
            except JudgeError as error:
                # A wrong address fails at the first look; later it is the network, or a restart.
                if before is None or time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
                display.moment(one_line(f"{error.message}; trying again"))
            else:
                heard = time.monotonic()
                for line in news(before, now):
                    display.line(line.removeprefix("·").strip())
                if now.over:
                    return now
                display.moment(one_line(_moment(now)))
                before = now
            time.sleep(LOOK_SECONDS)


def _moment(seen: "RemoteStatus") -> str:
    from harness.client import turn

    if seen.state == "queued":
        return turn(seen)
    said = seen.progress[-1].removeprefix("·").strip() if seen.progress else "it begins"
    return f"being judged: {said}"


def _tell(seen: "RemoteStatus") -> None:
    """How it stands, on stdout."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(
        Text(f"submission {seen.id} of {seen.author}: {seen.file_name}, season {seen.season}")
    )
    if not seen.over:
        console.print(Text(_moment(seen)))
        return
    state = f"{seen.state}: {seen.why}" if seen.why else seen.state
    if seen.state != "judged":
        console.print(Text(state, style="bold"))
    if seen.verdict is not None:
        code = "" if seen.verdict is Verdict.ACCEPTED else f"  [{seen.code}]"
        colour = f"bold {_COLOURS[seen.verdict]}"
        console.print(Text.assemble((seen.verdict.value.upper(), colour), code))
        console.print(Text(seen.message))
    if seen.run_mfus:
        runs = ", ".join(f"{mfu:.2%}" for mfu in seen.run_mfus)
        console.print(Text(f"MFU by run: {runs}"))


def _exit_status(seen: "RemoteStatus") -> int:
    if seen.state == "invalidated":
        return Verdict.REJECTED.exit_status
    if seen.state == "failed":
        return Verdict.ERROR.exit_status
    if not seen.over or seen.verdict is None or seen.state == "cancelled":
        return NO_VERDICT
    return seen.verdict.exit_status
