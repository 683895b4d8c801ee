"""One request and its answer, within limits of size and time; every failure says who has to act."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import requests
from pydantic import BaseModel, ConfigDict, ValidationError
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, ReadTimeoutError

from harness.client.address import Address
from harness.errors import Code, InputError, JudgeError, Side, SubmissionError, TrainjudgeError
from harness.protocol.text import excerpt, one_line, quoted

MAX_ANSWER_BYTES: Final = 8 * 2**20
CONNECT_SECONDS: Final = 10.0
#: Without a byte for so long, nothing comes any more.
SILENCE_SECONDS: Final = 60.0
#: Within it an answer has to be complete, however slowly it comes.
ANSWER_SECONDS: Final = 120.0
MESSAGE_CHARACTERS: Final = 2_000
#: What a status means where the answer says nothing that we know.
MEANINGS: Final[Mapping[int, tuple[Code, str]]] = {
    401: (Code.KEY_REFUSED, "refuses the API key"),
    403: (Code.KEY_REFUSED, "refuses access"),
    404: (Code.UNKNOWN_ID, "has nothing at this address: is it a leaderboard's?"),
    409: (Code.NOT_NOW, "does not take this now"),
    413: (Code.FILE_TOO_LARGE, "refuses a file of this size"),
    422: (Code.FILE_UNREADABLE, "refuses the file"),
    429: (Code.RATE_LIMITED, "has had too many requests lately: try again later"),
}
_CODES: Final = {code.value: code for code in Code if code.side is not Side.NOBODY}


@dataclass(frozen=True)
class Call:
    """What is asked.

    Attributes:
        method, path: such as POST and /api/v1/submissions.
        key: sent along; None: nothing is.
        fields, file: of a form; a file has a name and content.
        unsure: what to say where the answer is lost and the server may have done what was asked.
    """

    method: str
    path: str
    key: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, bytes] | None = None
    unsure: str = ""


def ask(address: Address, call: Call) -> bytes:
    """The body of a good answer.

    Raises:
        TrainjudgeError: what the server says, as if it had happened here.
        InputError: BAD_ARGUMENT: its certificate is not trusted, it is elsewhere, or is no leaderboard.
        JudgeError: STORE_UNAVAILABLE: it cannot be reached, or its answer does not arrive.
    """
    with requests.Session() as session:
        # A proxy of the environment is for what is far away, and would be sent the key.
        session.trust_env = not address.loopback
        try:
            response = session.request(
                call.method,
                address.url + call.path,
                # Without an `auth` of ours, one from a .netrc would take the place of the key.
                auth=_Bearer(call.key),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                data=dict(call.fields) or None,
                files=None if call.file is None else {"file": (*call.file, "text/x-python")},
                timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
                allow_redirects=False,
                stream=True,
            )
            with response:
                body = _body(response)
        except requests.exceptions.SSLError as error:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"no trusted connection to {address.url}: {_reason(error)}",
            ) from None
        except (requests.RequestException, HTTPError, OSError) as error:
            raise JudgeError(
                Code.STORE_UNAVAILABLE,
                f"cannot reach {address.url}: {_reason(error)}{_unsure(call, error)}",
            ) from None
        except _TooMuchError as error:
            raise JudgeError(
                Code.STORE_UNAVAILABLE, f"{address.url} {error}{_unsure(call, error)}"
            ) from None
    if 200 <= response.status_code < 300:
        return body
    if 300 <= response.status_code < 400:
        to = one_line(response.headers.get("Location", "nowhere"))
        raise InputError(
            Code.BAD_ARGUMENT, f"{address.url} sends us on to {to}: give the server's own address"
        )
    raise _refusal(address, response.status_code, body)


def no_leaderboard(address: Address, body: bytes) -> InputError:
    """Of an answer that is not what was asked for."""
    begins = quoted(body[:40].decode("utf-8", "replace"))
    return InputError(
        Code.BAD_ARGUMENT,
        f"{address.url} does not answer as a leaderboard does (it sent {begins}): is this its address?",
    )


class _Bearer(AuthBase):
    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _TooMuchError(Exception):
    """An answer that does not end, in bytes or in seconds."""


def _body(response: requests.Response) -> bytes:
    """As it comes: nothing is unpacked, so nothing can be larger than it is on the wire."""
    end = time.monotonic() + ANSWER_SECONDS
    parts: list[bytes] = []
    size = 0
    while part := response.raw.read1(64 * 1024, decode_content=False):
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise _TooMuchError(f"sends more than {MAX_ANSWER_BYTES:,} bytes")
        if time.monotonic() > end:
            raise _TooMuchError(f"has not finished its answer after {ANSWER_SECONDS:.0f} s")
        parts.append(part)
    return b"".join(parts)


# --- failures ---------------------------------------------------------------------------------


class _Answered(BaseModel):
    """What a leaderboard says instead of what was asked for."""

    model_config = ConfigDict(extra="ignore")
    code: str
    message: str


def _refusal(address: Address, status: int, body: bytes) -> TrainjudgeError:
    """The server's failure as it would have been raised here."""
    try:
        said = _Answered.model_validate_json(body)
    except ValidationError:
        said = _Answered(code="", message="")
    message = excerpt(said.message, MESSAGE_CHARACTERS)
    if status >= 500:
        # Whatever side its code is of, nobody at this end can do anything.
        words = message or f"{address.url} answers {status}: it fails, or what stands before it"
        return JudgeError(_CODES.get(said.code, Code.STORE_FAILED), words)
    meant, words = MEANINGS.get(status, (Code.BAD_ARGUMENT, f"answers {status}"))
    code = _CODES.get(said.code, meant)
    kind = {Side.SUBMISSION: SubmissionError, Side.JUDGE: JudgeError}.get(code.side, InputError)
    return kind(code, message or f"{address.url} {words}")


def _unsure(call: Call, error: Exception) -> str:
    """What to add where the request may have arrived."""
    if not call.unsure or isinstance(error, requests.exceptions.ConnectTimeout):
        return ""
    return "" if _never_connected(error) else f"; {call.unsure}"


def _never_connected(error: BaseException) -> bool:
    causes = [error, *error.args, *(getattr(each, "reason", None) for each in error.args)]
    return any(isinstance(each, NewConnectionError | ProxyError) for each in causes)


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words, such as "Connection refused"."""
    found: BaseException = error
    for _ in range(10):
        inside = [
            each
            for each in (getattr(found, "reason", None), *found.args)
            if isinstance(each, BaseException)
        ]
        below = inside[0] if inside else found.__cause__ or found.__context__
        if below is None or (isinstance(found, OSError) and found.strerror):
            break
        found = below
    if isinstance(error, requests.exceptions.Timeout | ReadTimeoutError):
        return "no answer in time"
    words = getattr(found, "strerror", None) or str(found) or type(found).__name__
    return one_line(str(words))
