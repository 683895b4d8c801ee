"""The JSON API, version 1. What it answers are the records of `board.views`, and pages show the same."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from harness.board.history import HistoryLine, events_after
from harness.board.organise import author_of_key, the_season
from harness.board.people import AuthorView, author_view
from harness.board.submit import Handed, cancel, submit
from harness.board.tables import MAX_NUMBER, Evaluation
from harness.board.views import (
    SeasonView,
    SubmissionView,
    result_document,
    season_view,
    seasons_view,
    source_text,
    submission_view,
)
from harness.board.waiting import QueueView, position_of, queue_length, queue_view
from harness.errors import Code, InputError
from harness.records import Record
from harness.result import EvaluationResult
from harness.submission.read import RemarkKind
from harness.web.boards import BoardPage, RecordRow, Show, Sort
from harness.web.boards import Query as BoardQuery
from harness.web.body import UPLOAD_BYTES, file_name, read_body, read_form
from harness.web.pages import site
from harness.web.problems import ErrorAnswer
from harness.web.sending import KEY_CHARACTERS, NAMELESS, remarks_on

EVENTS: Final = 1_000

router = APIRouter(
    prefix="/api/v1",
    responses={
        "4XX": {"model": ErrorAnswer, "description": "refused, and why"},
        "5XX": {"model": ErrorAnswer, "description": "our failure; try again later"},
    },
)
Number = Annotated[int, Query(ge=0, le=MAX_NUMBER)]
SeasonName = Annotated[
    str | None, Query(description="Default: the only one that is open, or the newest.")
]
Authorization = Annotated[str | None, Header(description="Bearer KEY")]
#: The file as it is, or a form with a field `file`.
UPLOAD: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "text/x-python": {"schema": {"type": "string"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "note": {"type": "string"},
                        "season": {"type": "string"},
                    },
                }
            },
        },
    }
}


class Taken(Record):
    """A file was taken, and waits. `position` 1 is next."""

    id: int
    url: str
    position: int | None


class RemarkView(Record):
    """One thing that can be said of a file without running it; `code` says which rule a problem breaks."""

    kind: RemarkKind
    message: str
    code: str


class Checked(Record):
    """Whether anything has to be mended, and all that can be said."""

    ok: bool
    remarks: tuple[RemarkView, ...]


# --- handing in -------------------------------------------------------------------------------


@router.post("/submissions", status_code=201, response_model=Taken, openapi_extra=UPLOAD)
async def hand_in(
    request: Request,
    authorization: Authorization = None,
    name: Annotated[str, Query(description="What the file is called.")] = NAMELESS,
    note: Annotated[str, Query(description="What its author says of it.")] = "",
    season: SeasonName = None,
) -> Response:
    """Hand in a train file: as the body, or as `file` of a form. Needs a key."""
    here = site(request)
    # Before a byte of the file is read.
    author = await run_in_threadpool(key_owner, request, authorization)
    given_name, source, fields = await _file(request)

    def taken() -> Taken:
        handed = Handed(
            author=author,
            file_name=file_name(given_name or name) or NAMELESS,
            source=source,
            note=fields.get("note", note),
            season=fields.get("season", season or "") or None,
        )
        number = submit(here.store, handed)
        with here.store.read() as session:
            position = position_of(session, number)
        return Taken(id=number, url=f"{here.base(request)}/submissions/{number}", position=position)

    made = await run_in_threadpool(taken)
    return JSONResponse(made.model_dump(), 201, {"Location": f"/api/v1/submissions/{made.id}"})


@router.post("/check", response_model=Checked, openapi_extra=UPLOAD)
async def look_at(
    request: Request, authorization: Authorization = None, season: SeasonName = None
) -> Checked:
    """What can be said of a file without running it, as `validator check` does. Needs a key."""
    here = site(request)
    await run_in_threadpool(key_owner, request, authorization)
    _, source, fields = await _file(request)

    def checked() -> Checked:
        with here.store.read() as session:
            name = the_season(session, fields.get("season", season or "") or None).name
            chosen = season_view(session, name)
        remarks = remarks_on(source, chosen, here.global_batches)
        return Checked(
            ok=all(remark.kind is not RemarkKind.PROBLEM for remark in remarks),
            remarks=tuple(
                RemarkView(kind=remark.kind, message=remark.message, code=remark.code)
                for remark in remarks
            ),
        )

    return await run_in_threadpool(checked)


@router.post("/submissions/{number}/cancel")
def take_back(request: Request, number: int, authorization: Authorization = None) -> SubmissionView:
    """Take a submission back before there is a verdict. Needs its author's key."""
    here = site(request)
    author = key_owner(request, authorization)
    now = here.store.now()
    with here.store.read() as session:
        submission_view(session, number, now)
    cancel(here.store, number, author)
    with here.store.read() as session:
        return submission_view(session, number, now)


def key_owner(request: Request, authorization: str | None) -> str:
    """The author whose key came along. Raises InputError(KEY_REFUSED)."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise InputError(
            Code.KEY_REFUSED, "this needs an API key, as the header `Authorization: Bearer KEY`"
        )
    return author_of_key(site(request).store, key.strip()[:KEY_CHARACTERS]).name


async def _file(request: Request) -> tuple[str, bytes, dict[str, str]]:
    """Name, content and fields of an upload."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return "", await read_body(request, UPLOAD_BYTES), {}
    form = await read_form(request, UPLOAD_BYTES)
    return form.file_name, form.source or b"", form.fields


# --- looking ----------------------------------------------------------------------------------


@router.get("/submissions/{number}")
def one_submission(request: Request, number: int) -> SubmissionView:
    """A submission with its evaluations and its history."""
    here = site(request)
    now = here.store.now()
    with here.store.read() as session:
        return submission_view(session, number, now)


@router.get("/submissions/{number}/source", response_class=PlainTextResponse)
def one_source(request: Request, number: int, authorization: Authorization = None) -> Response:
    """The train file, once it is public; its author, with a key, always."""
    here = site(request)
    viewer = None if authorization is None else key_owner(request, authorization)
    now = here.store.now()
    with here.store.read() as session:
        text = source_text(session, number, now, viewer)
    if text is None:
        raise InputError(Code.NOT_NOW, f"the source of submission {number} is not public yet")
    return PlainTextResponse(text)


@router.get("/evaluations/{number}")
def one_result(
    request: Request, number: int, authorization: Authorization = None
) -> EvaluationResult:
    """The whole result document. Log and detail are left out while the source is hidden."""
    here = site(request)
    viewer = None if authorization is None else key_owner(request, authorization)
    now = here.store.now()
    with here.store.read() as session:
        result = result_document(session, number)
        if result is None:
            raise InputError(Code.NOT_NOW, f"evaluation {number} has no result yet")
        of = session.get_one(Evaluation, number).submission_id
        hidden = source_text(session, of, now, viewer) is None
    return result.model_copy(update={"log": "", "detail": ""}) if hidden else result


@router.get("/queue")
def the_queue(
    request: Request,
    limit: Annotated[int, Query(ge=0, le=100_000)] = 1_000,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> QueueView:
    """What is judged now (position 0), and what waits in the order of its turn."""
    with site(request).store.read() as session:
        entries = queue_view(session, limit, offset)
        return QueueView(length=queue_length(session), entries=entries)


@router.get("/board")
def one_board(
    request: Request,
    season: SeasonName = None,
    strategy: str | None = None,
    hardware: str | None = None,
    show: Annotated[
        Show, Query(description="one entry an author, all of them, or those without a rank")
    ] = "best",
    sort: Sort = "rank",
    reverse: bool = False,
    page: Annotated[int, Query(ge=1, le=10**8)] = 1,
) -> BoardPage:
    """A board, 100 entries a page."""
    here = site(request)
    query = BoardQuery(
        strategy=strategy, hardware=hardware, show=show, sort=sort, reverse=reverse, page=page
    )
    with here.store.read() as session:
        number = the_season(session, season).id
    return here.boards.page(number, query)


@router.get("/records")
def the_records(request: Request, season: SeasonName = None) -> tuple[RecordRow, ...]:
    """Who led from when, oldest first."""
    here = site(request)
    with here.store.read() as session:
        number = the_season(session, season).id
    return here.boards.records(number)


@router.get("/seasons")
def all_seasons(request: Request) -> tuple[SeasonView, ...]:
    """All seasons with their rules, newest first."""
    with site(request).store.read() as session:
        return seasons_view(session)


@router.get("/authors/{name}")
def one_author(request: Request, name: str, offset: Number = 0) -> AuthorView:
    """An author and what they handed in, newest first, 100 at a time."""
    with site(request).store.read() as session:
        return author_view(session, name, offset)


@router.get("/events")
def past_events(request: Request, after: Number = 0) -> tuple[HistoryLine, ...]:
    """What happened, oldest first, at most 1,000 at a time: go on after the last one's id."""
    with site(request).store.read() as session:
        return events_after(session, after, EVENTS)


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "server-sent events"}},
)
async def events_stream(
    request: Request,
    after: Annotated[
        int | None, Query(ge=0, le=MAX_NUMBER, description="Default: only what comes now.")
    ] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """The same as it happens; `Last-Event-ID` goes on where a stream broke off."""
    live = site(request).live
    live.admit()
    if last_event_id and last_event_id.isascii() and last_event_id.isdecimal():
        after = min(int(last_event_id[:19]), MAX_NUMBER)
    if after is None:
        after = (await live.look()).last_event
    return event_stream(live.events(after))


def event_stream(messages: Any) -> StreamingResponse:
    """A response of server-sent events; nothing between us and the reader may hold it back."""
    return StreamingResponse(
        messages,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
