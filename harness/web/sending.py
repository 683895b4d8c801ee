"""The form: choose a file, read what `check` says of it, send it in. No cookies, so nothing to forge."""

import base64
import binascii
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from harness.board.organise import author_of_key
from harness.board.submit import NOTE_CHARACTERS, Handed, check_source, submit
from harness.board.views import SeasonView, season_view, seasons_view
from harness.errors import Code, InputError, SubmissionError, TrainjudgeError
from harness.submission.read import MAX_BYTES, Remark, RemarkKind, check_bytes
from harness.web.body import FORM_BYTES, UPLOAD_BYTES, Form, file_name, read_form
from harness.web.one_submission import submission_values
from harness.web.pages import Site, render, site
from harness.web.problems import headers_of, status_of

KEY_CHARACTERS: Final = 200
NAMELESS: Final = "train.py"


def form_page(request: Request) -> Response:
    return _form(request, site(request), Form({}, "", None))


def _form(
    request: Request, here: Site, form: Form, error: TrainjudgeError | None = None
) -> Response:
    now = here.store.now()
    with here.store.read() as session:
        running = [season for season in seasons_view(session) if season.runs(now)]
    return render(
        request,
        "submit.html",
        status=200 if error is None else status_of(error),
        headers={} if error is None else headers_of(error),
        seasons=running,
        chosen=form.get("season"),
        note=form.get("note"),
        error=error,
        base=here.base(request),
        note_characters=NOTE_CHARACTERS,
        max_bytes=MAX_BYTES,
    )


async def look(request: Request) -> Response:
    """The first step: who is it, and what can be said of the file without running it?"""
    form = await read_form(request, UPLOAD_BYTES)
    return await run_in_threadpool(_look, request, form)


def _look(request: Request, form: Form) -> Response:
    here = site(request)
    try:
        author = author_of_key(here.store, form.get("key").strip()[:KEY_CHARACTERS]).name
        if form.source is None:
            raise SubmissionError(Code.FILE_UNREADABLE, "no file was chosen")
        with here.store.read() as session:
            season = season_view(session, form.get("season"))
        remarks = remarks_on(form.source, season, here.global_batches)
    except (InputError, SubmissionError) as error:
        return _form(request, here, form, error)
    return render(
        request,
        "checked.html",
        author=author,
        season=season.name,
        file_name=form.file_name or NAMELESS,
        note=form.get("note")[:NOTE_CHARACTERS],
        remarks=remarks,
        problems=sum(remark.kind is RemarkKind.PROBLEM for remark in remarks),
        source_base64=base64.b64encode(form.source).decode(),
        ticket=here.tickets.issue(author, season.name, form.source),
        bytes=len(form.source),
    )


async def send(request: Request) -> Response:
    """The second step: the very file that was looked at."""
    form = await read_form(request, FORM_BYTES)
    return await run_in_threadpool(_send, request, form)


def _send(request: Request, form: Form) -> Response:
    here = site(request)
    try:
        source = base64.b64decode(form.get("source_base64"), validate=True)
        author = here.tickets.author(form.get("ticket"), form.get("season"), source)
        handed = Handed(
            author=author,
            file_name=file_name(form.get("file_name")) or NAMELESS,
            source=source,
            note=form.get("note"),
            season=form.get("season"),
        )
        number = submit(here.store, handed)
    except binascii.Error:
        return _form(
            request, here, form, SubmissionError(Code.FILE_UNREADABLE, "the file did not arrive")
        )
    except (InputError, SubmissionError) as error:
        return _form(request, here, form, error)
    return RedirectResponse(f"/submissions/{number}", 303)


async def owner(request: Request) -> Response:
    """A submission's page for its author, who may read the source before all others."""
    form = await read_form(request, 16 * 1024)

    def page() -> Response:
        here = site(request)
        name = author_of_key(here.store, form.get("key").strip()[:KEY_CHARACTERS]).name
        return render(request, "submission.html", **submission_values(request, viewer=name))

    return await run_in_threadpool(page)


def remarks_on(source: bytes, season: SeasonView, global_batches: Any) -> list[Remark]:
    """What `check` says of a file for a season's benchmark."""
    try:
        check_source(source)
    except SubmissionError as error:
        return [Remark(RemarkKind.PROBLEM, error.message, error.code)]
    return check_bytes(source, season.world_size, global_batches.get(season.hparams_sha256))


ROUTES: Final = [
    Route("/submit", form_page),
    Route("/submit/check", look, methods=["POST"]),
    Route("/submit/send", send, methods=["POST"]),
    Route("/submissions/{number:number}/own", owner, methods=["POST"]),
]
