"""Every failure of a command becomes a message on stderr and the exit status of the guilty side."""

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from harness.errors import Code, InputError, TrainjudgeError

DEFECT = 3
#: What the extra `board` brings along: whoever only judges has none of it.
BOARD_LIBRARIES = frozenset(
    {
        *("alembic", "fastapi", "jinja2", "pandas", "prometheus_client", "psycopg", "pyarrow"),
        *("python_multipart", "sqlalchemy", "starlette", "uvicorn"),
    }
)
#: What the extra `fleet` brings along.
FLEET_LIBRARIES = frozenset({"fsspec", "ray"})
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked us to end. No `Exception`, or an evaluation would make a verdict of it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    # Once is enough: `timeout` sends its signal twice, and the second would interrupt the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted(number)


def on_ending_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Call `handler` for each signal that asks to end, but for those that nohup has us ignore."""
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def interrupt_on_ending_signals() -> None:
    """Have each of them raise `Interrupted`, which `exit_statuses` tells."""
    on_ending_signals(_interrupt)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """Turns our exceptions into one clear message on stderr and the guilty side's exit status.

    A signal that asks us to end becomes an exception too, so that sandboxes and folders are cleaned up:
    `timeout` sends SIGTERM, a closed terminal SIGHUP.
    """
    interrupt_on_ending_signals()
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
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in BOARD_LIBRARIES | FLEET_LIBRARIES:
            _tell_defect()
        what, extra = (
            ("the fleet", "fleet") if missing in FLEET_LIBRARIES else ("the leaderboard", "board")
        )
        typer.echo(
            f"validator: {Code.BAD_ARGUMENT}: {what} needs {missing}: pip install 'trainjudge[{extra}]'",
            err=True,
        )
        sys.exit(InputError.exit_status)
    except Exception:
        _tell_defect()


def _tell_defect() -> NoReturn:
    # Status 1 would read as "rejected".
    traceback.print_exc()
    typer.echo("validator: internal: a defect of the judge; please report it", err=True)
    sys.exit(DEFECT)
