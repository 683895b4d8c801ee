"""The page of one submission, its source, and what it changed. They work without JavaScript."""

from typing import Any, Final

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from harness.board.states import EvaluationState
from harness.board.views import (
    SubmissionView,
    earlier_of_author,
    result_document,
    season_view,
    source_text,
    submission_view,
)
from harness.board.waiting import position_of
from harness.errors import Code, InputError
from harness.result import EvaluationResult
from harness.web import charts
from harness.web.live import last_line
from harness.web.pages import number_of, render, site
from harness.web.source import coloured, cut, difference

LIVE: Final = (EvaluationState.QUEUED, EvaluationState.RUNNING)


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
        chosen = number_of(wanted, digits=18)
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


ROUTES: Final = [
    Route("/submissions/{number:number}", submission),
    Route("/submissions/{number:number}/source.py", raw_source),
    Route("/submissions/{number:number}/changes", changes),
]
