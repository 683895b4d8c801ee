"""Every failure as an answer: small JSON for programs, a calm page for people."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from harness.errors import Code, JudgeError, TrainjudgeError
from harness.protocol.text import one_line, printable
from harness.web.pages import render
from harness.web.problems import (
    DEFECT,
    HTTP_CODES,
    TITLES,
    ErrorAnswer,
    RequestError,
    headers_of,
    status_of,
)

log = logging.getLogger("trainjudge.web")


def add_handlers(app: FastAPI) -> None:
    """Make `app` answer every failure."""
    app.add_exception_handler(TrainjudgeError, _told)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(Exception, _defect)


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, TrainjudgeError)
    status = status_of(error)
    if isinstance(error, JudgeError):
        log.error("%s: %s %s", error.code, error.message, error.detail)
    message = DEFECT if status == 500 else error.message
    return answer(request, status, error.code, message, headers_of(error))


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    # Of a body that was not read to its end the rest would be taken for the next request.
    return answer(request, error.status, error.code, error.message, {"Connection": "close"})


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, message = HTTP_CODES.get(error.status_code, ("bad_request", str(error.detail)))
    return answer(request, error.status_code, code, message, dict(error.headers or {}))


def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return answer(request, 400, Code.BAD_ARGUMENT, f"{where}: {first['msg']}", {})


def _defect(request: Request, error: Exception) -> Response:
    # The server's log has the traceback already.
    return answer(request, 500, Code.INTERNAL, DEFECT, {})


def answer(
    request: Request, status: int, code: str, message: str, headers: Mapping[str, str]
) -> Response:
    """A failure, in the form that whoever asked can read."""
    if request.url.path.startswith("/api/"):
        body = ErrorAnswer(code=code, message=printable(message)).model_dump()
        return JSONResponse(body, status, dict(headers))
    return render(
        request,
        "problem.html",
        status=status,
        headers=headers,
        number=status,
        title=TITLES.get(status, "That did not work"),
        message=one_line(message) if status == 404 else message,
        code=code,
    )
