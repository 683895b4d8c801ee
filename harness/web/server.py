"""The server: uvicorn, told how to end while people watch."""

import socket
import threading
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from harness.errors import TrainjudgeError
from harness.web.looking import prepare
from harness.web.pages import Site

#: For answers that are on their way when the server is asked to end.
SHUTDOWN_SECONDS: Final = 5
#: A connection on which nothing comes is closed.
KEEP_ALIVE_SECONDS: Final = 15


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve at a socket until SIGTERM or SIGINT, which then reaches the process as it would have."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    # Beside serving, with a large season it takes seconds; whoever comes first waits for it at most.
    threading.Thread(target=_prepare, args=(app.state.site,), daemon=True).start()
    Server(config, app.state.site).run(sockets=[listening])


def _prepare(site: Site) -> None:
    # A store that fails tells whoever asks for a page.
    with suppress(TrainjudgeError):
        prepare(site)


class Server(uvicorn.Server):
    """Streams end with it; they would go on until they were cut off."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._site.live.end()
        super().handle_exit(sig, frame)
