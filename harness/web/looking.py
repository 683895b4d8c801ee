"""Pages to look at: boards, authors, the queue, rules. All of them work without JavaScript."""

from typing import Any, Final, cast, get_args

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from harness.board.people import PAGE, author_view, workers_view
from harness.board.rows import BoardRow
from harness.board.rule import ScoringRule
from harness.board.views import SeasonView, season_view, seasons_view
from harness.board.waiting import queue_length, queue_view
from harness.fleet.seen import host_of, node_lines
from harness.web import charts
from harness.web.boards import Query, Show, Sort
from harness.web.live import last_line
from harness.web.pages import Site, compile_pages, number_of, render, site
from harness.web.source import coloured

QUEUE_SHOWN: Final = 200


def home(request: Request) -> Response:
    """The board of the season that runs; of several the newest."""
    here = site(request)
    with here.store.read() as session:
        known = seasons_view(session)
    chosen = _shown_first(here, known)
    return render(request, "empty.html") if chosen is None else _board(request, here, chosen, known)


def _shown_first(here: Site, known: tuple[SeasonView, ...]) -> SeasonView | None:
    now = here.store.now()
    running = [season for season in known if season.runs(now)]
    return next(iter([*running, *known]), None)


def prepare(here: Site) -> None:
    """What the first visitors would wait for: pages are compiled, the season on the first one is ranked."""
    compile_pages()
    coloured("import torch")
    with here.store.read() as session:
        known = seasons_view(session)
    chosen = _shown_first(here, known)
    if chosen is not None:
        here.boards.page(chosen.id, Query())
        here.boards.dots(chosen.id)


def season(request: Request) -> Response:
    here = site(request)
    with here.store.read() as session:
        chosen = season_view(session, request.path_params["name"])
        known = seasons_view(session)
    return _board(request, here, chosen, known)


def _board(
    request: Request, here: Site, chosen: SeasonView, known: tuple[SeasonView, ...]
) -> Response:
    # One connection at a time: were two needed at once, all threads could wait for their second.
    now = here.store.now()
    query = board_query(request.query_params.get)
    board = here.boards.page(chosen.id, query)
    records = here.boards.records(chosen.id)
    dots = here.boards.dots(chosen.id)
    with here.store.read() as session:
        waiting = queue_length(session)
    return render(
        request,
        "board.html",
        season=chosen,
        seasons=known,
        over=chosen.over(now),
        begun=now >= chosen.starts_at,
        board=board,
        query=query,
        records=records,
        wide=charts.record_chart(records, dots, now, wide=True),
        narrow=charts.record_chart(records, dots, now, wide=False),
        spreads=charts.spreads(board.rows),
        waiting=waiting,
    )


def board_query(get: Any) -> Query:
    """From an address; what is not understood there is as if it were not there."""
    show, sort, page = get("show") or "best", get("sort") or "rank", get("page") or "1"
    return Query(
        strategy=get("strategy") or None,
        hardware=get("hardware") or None,
        show=cast(Show, show) if show in get_args(Show) else "best",
        sort=cast(Sort, sort) if sort in get_args(Sort) else "rank",
        reverse=get("order") == "reverse",
        page=_page(page),
    )


def _page(given: str) -> int:
    found = number_of(given, digits=8)
    return 1 if found is None else found


def seasons(request: Request) -> Response:
    here = site(request)
    now = here.store.now()
    with here.store.read() as session:
        return render(request, "seasons.html", seasons=seasons_view(session), now=now)


def rules(request: Request) -> Response:
    here = site(request)
    with here.store.read() as session:
        chosen = season_view(session, request.path_params["name"])
    fields = [
        (name, field.description or "", getattr(chosen.rule, name))
        for name, field in ScoringRule.model_fields.items()
    ]
    return render(
        request, "rules.html", season=chosen, fields=fields, over=chosen.over(here.store.now())
    )


# --- authors and the queue --------------------------------------------------------------------


def author(request: Request) -> Response:
    here = site(request)
    given = request.query_params.get("page", "1")
    page = max(1, _page(given))
    with here.store.read() as session:
        view = author_view(session, request.path_params["name"], (page - 1) * PAGE)
        by_name = {each.name: each.id for each in seasons_view(session)}
    places: dict[int, BoardRow] = {}
    for name in {line.season for line in view.submissions}:
        numbers = [line.id for line in view.submissions if line.season == name]
        places |= here.boards.places(by_name[name], numbers)
    pages = max(1, -(-view.total // PAGE))
    return render(request, "author.html", author=view, places=places, page=page, pages=pages)


def queue(request: Request) -> Response:
    here = site(request)
    now = here.store.now()
    page = max(1, _page(request.query_params.get("page", "1")))
    with here.store.read() as session:
        entries = queue_view(session, QUEUE_SHOWN, (page - 1) * QUEUE_SHOWN)
        length = queue_length(session)
        workers = [each for each in workers_view(session, now) if each.alive]
        return render(
            request,
            "queue.html",
            running=[(each, last_line(each.progress)) for each in entries if each.position == 0],
            waiting=[each for each in entries if each.position > 0],
            length=length,
            page=page,
            pages=max(1, -(-length // QUEUE_SHOWN)),
            workers=workers,
            fleet=any(host_of(each.name) for each in workers),
            now=now,
        )


def fleet(request: Request) -> Response:
    """The nodes of a fleet, as far as the store knows them."""
    here = site(request)
    now = here.store.now()
    with here.store.read() as session:
        nodes, length = node_lines(session, now), queue_length(session)
    return render(request, "fleet.html", nodes=nodes, length=length)


def api_page(request: Request) -> Response:
    """What the API can do; made from its description, as a browser can read it."""
    described = request.app.openapi()
    endpoints = [
        (method.upper(), path, operation)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    return render(
        request,
        "api.html",
        base=site(request).base(request),
        endpoints=endpoints,
        version=described["info"]["version"],
    )


def icon(request: Request) -> Response:
    return RedirectResponse("/static/icon.svg", 308)


ROUTES: Final = [
    Route("/", home),
    Route("/seasons", seasons),
    Route("/seasons/{name}", season),
    Route("/seasons/{name}/rules", rules),
    Route("/authors/{name}", author),
    Route("/queue", queue),
    Route("/fleet", fleet),
    Route("/api", api_page),
    Route("/favicon.ico", icon),
]
