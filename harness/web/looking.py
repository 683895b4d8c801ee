"""Pages to look at: boards, submissions, authors, the queue, rules. All of them work without JavaScript."""

from typing import Any, Final, cast, get_args

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from harness.board.people import PAGE, author_view, workers_view
from harness.board.rule import ScoringRule
from harness.board.states import EvaluationState
from harness.board.views import (
    SeasonView,
    SubmissionView,
    earlier_of_author,
    result_document,
    season_view,
    seasons_view,
    source_text,
    submission_view,
)
from harness.board.waiting import position_of, queue_length, queue_view
from harness.errors import Code, InputError
from harness.result import EvaluationResult
from harness.web import charts
from harness.web.boards import BoardRow, Query, Show, Sort
from harness.web.live import last_line
from harness.web.pages import Site, compile_pages, render, site
from harness.web.source import coloured, cut, difference

QUEUE_SHOWN: Final = 200
LIVE: Final = (EvaluationState.QUEUED, EvaluationState.RUNNING)


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
    found = _number(given, digits=8)
    return 1 if found is None else found


def _number(given: str, digits: int) -> int | None:
    """A number of an address; None for anything else, and for one with more digits."""
    return int(given) if given.isascii() and given.isdecimal() and len(given) <= digits else None


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


# --- one submission ---------------------------------------------------------------------------


def submission(request: Request) -> Response:
    return render(request, "submission.html", **submission_values(request, viewer=None))


def submission_values(request: Request, viewer: str | None) -> dict[str, Any]:
    """What stands on a submission's page; `viewer` is an author who has shown a key."""
    here = site(request)
    number = request.path_params["number"]
    now = here.store.now()
    with here.store.read() as session:
        view = submission_view(session, number, now)
        source = source_text(session, number, now, viewer)
        shown, result = _result(session, view, request.query_params.get("evaluation"))
        waiting = view.evaluations and view.evaluations[-1].state is EvaluationState.QUEUED
        position = position_of(session, number) if waiting else None
        earlier = earlier_of_author(session, number)
        chosen = season_view(session, view.season)
    place = here.boards.places(chosen.id, [number]).get(number)
    return {
        "submission": view,
        "season": chosen,
        "place": place,
        "position": position,
        "evaluation": shown,
        # By the season's peak, as they are ranked; the document has them by its own.
        "mfus": next((each.run_mfus for each in view.evaluations if each.id == shown), ()),
        "began": next((each.started_at for each in view.evaluations if each.id == shown), None),
        "running": [
            (each.id, last_line(each.progress))
            for each in view.evaluations
            if each.state is EvaluationState.RUNNING
        ],
        "open": any(each.state in LIVE for each in view.evaluations),
        "last_event": view.history[-1].id if view.history else 0,
        "earlier": earlier,
        "viewer": viewer,
        "source": None if source is None else coloured(source),
        "source_cut": source is not None and cut(source),
        # What a file prints, or dies of, quotes it.
        "says_all": source is not None,
        **_figures(result),
    }


def _result(
    session: Session, view: SubmissionView, wanted: str | None
) -> tuple[int | None, EvaluationResult | None]:
    """The wanted evaluation that has a result, or the newest."""
    having = [each.id for each in view.evaluations if each.has_result]
    chosen = next((number for number in having if str(number) == wanted), None)
    number = chosen if chosen is not None else next(iter(reversed(having)), None)
    return number, None if number is None else result_document(session, number)


def _figures(result: EvaluationResult | None) -> dict[str, Any]:
    if result is None:
        return {"result": None, "checks": (), "plots": (), "phases": (), "memory": ()}
    ranks = max((len(run.reported_memory_bytes) for run in result.runs), default=0)
    memory = [
        (
            f"rank {rank}",
            float(
                max(
                    run.reported_memory_bytes[rank]
                    for run in result.runs
                    if len(run.reported_memory_bytes) > rank
                )
            ),
        )
        for rank in range(ranks)
    ]
    return {
        "result": result,
        "checks": charts.check_bars(result),
        "plots": [(run.run + 1, charts.step_plot(run)) for run in result.runs],
        "phases": charts.bars([(phase.name, phase.seconds) for phase in result.phases], "timed"),
        "memory": charts.bars(memory),
    }


def raw_source(request: Request) -> Response:
    here = site(request)
    number = request.path_params["number"]
    now = here.store.now()
    with here.store.read() as session:
        text = source_text(session, number, now)
    if text is None:
        raise InputError(Code.NOT_NOW, f"the source of submission {number} is not public yet")
    return PlainTextResponse(
        text, headers={"Content-Disposition": f'inline; filename="submission-{number}.py"'}
    )


def changes(request: Request) -> Response:
    """The difference from the author's submission before this one, or from any other: ?with=7."""
    here = site(request)
    number = request.path_params["number"]
    now = here.store.now()
    wanted = request.query_params.get("with", "")
    with here.store.read() as session:
        view = submission_view(session, number, now)
        chosen = _number(wanted, digits=18)
        other = chosen if chosen is not None else earlier_of_author(session, number)
        if other is None:
            raise InputError(Code.UNKNOWN_ID, f"submission {number} has none before it")
        later, earlier = (source_text(session, each, now) for each in (number, other))
    if later is None or earlier is None:
        raise InputError(Code.NOT_NOW, "the source of one of the two is not public yet")
    return render(
        request,
        "changes.html",
        submission=view,
        other=other,
        difference=difference(earlier, later),
        same=earlier == later,
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
        return render(
            request,
            "queue.html",
            running=[(each, last_line(each.progress)) for each in entries if each.position == 0],
            waiting=[each for each in entries if each.position > 0],
            length=length,
            page=page,
            pages=max(1, -(-length // QUEUE_SHOWN)),
            workers=[each for each in workers_view(session, now) if each.alive],
            now=now,
        )


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
    Route("/submissions/{number:number}", submission),
    Route("/submissions/{number:number}/source.py", raw_source),
    Route("/submissions/{number:number}/changes", changes),
    Route("/authors/{name}", author),
    Route("/queue", queue),
    Route("/api", api_page),
    Route("/favicon.ico", icon),
]
