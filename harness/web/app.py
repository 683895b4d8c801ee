"""The web application, put together from its parts."""

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from harness.board.leaderboard import Leaderboard
from harness.board.store import Store
from harness.web import api, feed, health, looking, one_submission, sending
from harness.web.answers import add_handlers
from harness.web.boards import Boards
from harness.web.live import Live
from harness.web.pages import STATIC, Site, site
from harness.web.security import securing
from harness.web.tickets import Tickets

#: How often the store is looked at for those who watch.
LOOK_SECONDS: Final = 1.0


def make_app(
    store: Store,
    *,
    global_batches: Mapping[str, int] | None = None,
    public_url: str = "",
    look_seconds: float = LOOK_SECONDS,
) -> FastAPI:
    """An application that serves a store.

    Args:
        store: open, and closed by whoever opened it.
        global_batches: rows of a step, by the hash of the benchmark's hparams file, of those benchmarks
            that are known here; for `check`.
        public_url: where the site is seen from outside; empty: as each request says.
        look_seconds: between two looks at the store for those who watch live parts.
    """
    app = _Application(
        title="trainjudge leaderboard",
        version="1",
        description="Who trains fastest, and whether they really did. Errors are {code, message}.",
        docs_url=None,  # it would load its assets from elsewhere; /api is ours
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics is ours
    )
    app.state.site = Site(
        store=store,
        boards=Boards(store, Leaderboard(store)),
        live=Live(store, look_seconds),
        tickets=Tickets(),
        global_batches=dict(global_batches or {}),
        public_url=public_url.rstrip("/"),
    )
    app.state.registry = health.make_registry(store)
    app.include_router(api.router)
    rooms = (looking, one_submission, sending, feed, health)
    pages = [*(route for room in rooms for route in room.ROUTES), Route("/live", _live)]
    app.router.routes.extend([*pages, Mount("/static", _Static(directory=STATIC))])
    add_handlers(app)
    return app


class _Application(FastAPI):
    """Middleware would be too far inside: an answer to a defect of ours would come without headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, securing(send) if scope["type"] == "http" else send)


async def _live(request: Request) -> Response:
    """What pages listen to."""
    live = site(request).live
    live.admit()
    return api.event_stream(live.pages())


class _Static(StaticFiles):
    """Their addresses change with their content, so browsers may keep them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if scope["query_string"].startswith(b"v="):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
