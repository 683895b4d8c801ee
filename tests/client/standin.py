"""A small server on 127.0.0.1 whose answers a test decides, for tests of who talks to servers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests import http_standin


@dataclass
class Asked:
    """A request. `parts` are those of a form: (name, name of a file, content)."""

    method: str
    path: str
    headers: dict[str, str]
    parts: list[tuple[str, str | None, bytes]]


@dataclass
class Answer:
    """What is sent back. `raw`: these bytes and nothing else, then the connection is closed."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    raw: bytes | None = None


@dataclass
class Standin:
    """The server: `answer` is asked for every request."""

    url: str
    answer: Callable[[Asked], Answer] = lambda asked: Answer()
    asked: list[Asked] = field(default_factory=list)


def answered(status: int, document: Any) -> Answer:
    """JSON."""
    return Answer(status, json.dumps(document).encode())


@contextmanager
def serving() -> Iterator[Standin]:
    """Serve until the context is left."""
    with http_standin.serving(_Handler, _Server) as server:
        standin = Standin(http_standin.url_of(server))
        server.standin = standin  # type: ignore[attr-defined]
        yield standin


def submission(**changes: Any) -> dict[str, Any]:
    """A submission as the API describes it; it was accepted."""
    return {
        "id": 17,
        "season": "autumn",
        "author": "ada",
        "file_name": "train.py",
        "note": "",
        "strategy": "dp 2",
        "world_size": 2,
        "at": 1_795_000_000.0,
        "state": "judged",
        "why": "",
        "verdict": "accepted",
        "evaluations": [evaluation()],
        "history": [
            {"id": 3, "at": 1.0, "kind": "submitted", "text": "train.py handed in"},
            {"id": 4, "at": 1.0, "kind": "evaluation_queued", "text": "evaluation 9 queued"},
        ],
        "alarms": [],
        "comparisons": [],
        "source_public": True,
        **changes,
    }


def evaluation(**changes: Any) -> dict[str, Any]:
    """An evaluation as the API describes it; it was accepted."""
    return {
        "id": 9,
        "state": "finished",
        "verdict": "accepted",
        "code": "ok",
        "message": "the update is that of the reference",
        "run_mfus": [0.4, 0.42],
        "progress": "",
        **changes,
    }


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that hung up; tests look at its end."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def log_message(self, *_: object) -> None:
        pass

    def _do(self) -> None:
        standin: Standin = self.server.standin  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.headers.get("Content-Type", "")
        asked = Asked(self.command, self.path, dict(self.headers), _parts(kind, body))
        standin.asked.append(asked)
        answer = standin.answer(asked)
        if answer.raw is not None:
            self.wfile.write(answer.raw)
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


def _parts(kind: str, body: bytes) -> list[tuple[str, str | None, bytes]]:
    if not kind.startswith("multipart/form-data"):
        return []
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    return [
        (
            str(part.get_param("name", header="content-disposition")),
            part.get_filename(),
            bytes(part.get_payload(decode=True)),
        )
        for part in message.iter_parts()
    ]
