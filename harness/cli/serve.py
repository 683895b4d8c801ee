"""`serve`: the leaderboard's pages and API, and on request a worker beside them."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from harness.cli.options import (
    LEVELS_HELP,
    ORGANISER_PANEL,
    DataOption,
    HparamsOption,
    StoreOption,
)
from harness.cli.store import opened
from harness.errors import Code, InputError

#: For the worker to end its sandbox and give back what it had.
WORKER_SECONDS: Final = 90.0


def add_to(app: typer.Typer) -> None:
    """Make `serve` a command of `app`."""
    app.command(rich_help_panel=ORGANISER_PANEL)(serve)


def serve(
    data: DataOption = None,
    store: StoreOption = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8000,
    url: Annotated[
        str, typer.Option(help="Where people see the site, for links in the feed.")
    ] = "",
    worker: Annotated[bool, typer.Option("--worker", help="Judge too, beside serving.")] = False,
    hparams: HparamsOption = None,
    sandbox: Annotated[str, typer.Option(help=f"Of the worker. {LEVELS_HELP}")] = "auto",
) -> None:
    """Serve the leaderboard: pages, upload form and API, until SIGTERM or Ctrl-C.

    Encryption is left to whatever stands in front of it, such as nginx or Caddy.

    [dim]validator serve --worker[/dim]

    [dim]validator serve --host 0.0.0.0 --url https://board.example.org[/dim]
    """
    with opened(data, store) as board, _listening(host, port) as listening:
        from harness.web.app import make_app
        from harness.web.server import run

        app = make_app(board, global_batches=_global_batches(hparams), public_url=url)
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"serving at http://{shown}:{listening.getsockname()[1]}", err=True)
        with _worker(_worker_options(data, store, hparams, sandbox) if worker else None):
            run(app, listening)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Raises InputError(BAD_ARGUMENT): somebody else listens there, or there is no such address."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"cannot listen at {host}, port {port}: {error.strerror or error}"
        ) from None
    with listening:
        yield listening


def _global_batches(hparams: Path | None) -> dict[str, int]:
    """Of the benchmark that is known here; without one `check` says a little less.

    Raises InputError(HPARAMS_INVALID): the one that was asked for cannot be read.
    """
    from harness.benchmark.hparams import load_hparams

    try:
        loaded = load_hparams(hparams)
    except InputError:
        if hparams is not None:
            raise
        return {}
    return {loaded.sha256: loaded.hparams.global_batch}


def _worker_options(
    data: Path | None, store: str | None, hparams: Path | None, sandbox: str
) -> list[str]:
    options = ["--sandbox", sandbox, "--grace", "0"]
    for name, value in (("--data", data), ("--store", store), ("--hparams", hparams)):
        options += [] if value is None else [name, str(value)]
    return options


@contextmanager
def _worker(options: list[str] | None) -> Iterator[None]:
    """A worker for as long as this lasts; None: no worker.

    It ends before us and gives back what it has. If it ends by itself, we say so and go on: the pages are
    there to be looked at, whatever is wrong with judging.
    """
    if options is None:
        yield
        return
    from harness.board.child import end_child, end_with_parent

    child = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "worker", *options],
        preexec_fn=end_with_parent(os.getpid()),
    )
    ending = threading.Event()

    def watch() -> None:
        status = child.wait()
        if not ending.is_set():
            typer.echo(
                f"validator: the worker ended with status {status}; nothing is judged until "
                "`validator worker` is started",
                err=True,
            )

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ending.set()
        end_child(child, WORKER_SECONDS)
