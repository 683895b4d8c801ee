"""Failures and their HTTP statuses: whose fault it is decides."""

import math
from collections.abc import Mapping
from typing import Final

from harness.board.submit import RateLimitedError
from harness.errors import Code, InputError, SubmissionError, TrainjudgeError
from harness.records import Record

#: Where the class of the error does not say it all.
STATUS: Final[Mapping[Code, int]] = {
    Code.UNKNOWN_ID: 404,
    Code.NOT_NOW: 409,
    Code.KEY_REFUSED: 401,
    Code.RATE_LIMITED: 429,
    Code.FILE_TOO_LARGE: 413,
    Code.STORE_UNAVAILABLE: 503,
    Code.STORE_NEWER: 503,
    Code.STORE_FAILED: 503,
}
#: What HTTP itself refuses; these codes are ours and stay.
HTTP_CODES: Final[Mapping[int, tuple[str, str]]] = {
    404: ("unknown_page", "There is nothing at this address."),
    405: ("wrong_method", "This address does not take that method."),
}
TITLES: Final[Mapping[int, str]] = {
    401: "The key was refused",
    404: "Not here",
    409: "Not now",
    413: "Too large",
    422: "The file was refused",
    429: "Too much for today",
    503: "Not available at the moment",
}
DEFECT: Final = "Something of ours failed. It is in the organiser's log; please try again later."


class ErrorAnswer(Record):
    """What a program gets instead of what it asked for."""

    code: str
    message: str


class RequestError(Exception):
    """A request that HTTP itself has to refuse, such as a body that never ends."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def status_of(error: TrainjudgeError) -> int:
    """The HTTP status that says whose fault it is."""
    if error.code in STATUS:
        return STATUS[error.code]
    match error:
        case SubmissionError():
            return 422
        case InputError():
            return 400
        case _:
            return 500


def headers_of(error: TrainjudgeError) -> dict[str, str]:
    """What a client can act on by itself."""
    match status_of(error):
        case 401:
            return {"WWW-Authenticate": "Bearer"}
        case 429:
            seconds = error.retry_after_seconds if isinstance(error, RateLimitedError) else 3_600
            return {"Retry-After": str(max(1, math.ceil(seconds)))}
        case 503:
            return {"Retry-After": "10"}
        case _:
            return {}
