"""Bodies of requests: read within limits of size and time, and only then looked at."""

import asyncio
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from harness.errors import Code
from harness.protocol.text import one_line
from harness.submission.read import MAX_BYTES
from harness.web.problems import RequestError

#: A whole file has to be here by then, however slowly it comes.
BODY_SECONDS: Final = 60.0
#: A file as it is, its names and a note, and the seams between them.
UPLOAD_BYTES: Final = MAX_BYTES + 64 * 1024
#: The same file written in base64, as a form sends it the second time.
FORM_BYTES: Final = MAX_BYTES * 4 // 3 + 128 * 1024


@dataclass(frozen=True)
class Form:
    """A form as it was sent.

    Attributes:
        fields: the last of each name.
        file_name, source: of the file that is part of it; empty and None where there is none.
    """

    fields: dict[str, str]
    file_name: str
    source: bytes | None

    def get(self, name: str) -> str:
        return self.fields.get(name, "")


async def read_body(request: Request, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """The body. Raises RequestError: it is too large, or does not come to an end."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit):
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        raise RequestError(
            408, "too_slow", f"The file was not here after {seconds:.0f} seconds."
        ) from None
    except ClientDisconnect:
        raise RequestError(
            400, "bad_request", "The connection ended before the file did."
        ) from None
    return b"".join(parts)


async def read_form(request: Request, limit: int, seconds: float = BODY_SECONDS) -> Form:
    """A form with at most one file. Raises RequestError."""
    body = await read_body(request, limit, seconds)

    async def whole() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    # What the form's reader may raise depends on how it is broken; all of it is the sender's.
    try:
        read = Request(request.scope, whole)
        async with read.form(max_files=1, max_fields=20, max_part_size=limit) as form:
            fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            file = files[0] if files else None
            source = None if file is None else await file.read()
            name = "" if file is None else file.filename or ""
    except (HTTPException, ValueError, LookupError, AssertionError):
        raise RequestError(400, "bad_request", "This form cannot be read.") from None
    return Form(fields, file_name(name), source if source or name else None)


def file_name(given: str) -> str:
    """What a file is called, without the folders in which its author keeps it."""
    return one_line(PurePosixPath(given.replace("\\", "/")).name)


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        Code.FILE_TOO_LARGE,
        f"That is over {limit:,} bytes; a train file has at most {MAX_BYTES:,}.",
    )
