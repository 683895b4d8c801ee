"""A small Hugging Face hub on 127.0.0.1, for tests of downloads without a network.

It answers the requests of `huggingface_hub`: which commit is the newest, paths-info and tree of a
commit, and resolve with the hub's headers, small files directly, large ones by a redirect, both with
ranges. Its error answers carry the hub's X-Error-Code.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from tests.http_standin import serving, url_of

LARGE_BYTES = 10_000


@dataclass
class Repository:
    """One repository at one commit.

    Attributes:
        revision: the commit.
        files: path to content.
        token: where given, only requests with it are served.
        sent: path to the bytes that are sent instead of the content, whatever the hashes say.
        sent_commit: the commit that answers claim to be of; None: `revision`.
    """

    revision: str
    files: dict[str, bytes]
    token: str | None = None
    sent: dict[str, bytes] = field(default_factory=dict)
    sent_commit: str | None = None


@dataclass
class Hub:
    """The server's state; `repositories` are named "models/owner/name" or "datasets/owner/name"."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    down: bool = False


@contextmanager
def hub_standin() -> Iterator[Hub]:
    """Serve until the context is left."""
    with serving(_Handler) as server:
        hub = Hub(url=url_of(server))
        server.hub = hub  # type: ignore[attr-defined]
        yield hub


def describe(path: str, content: bytes) -> dict[str, object]:
    """A file as the hub lists it: git's blob id, and the SHA-256 of a large file."""
    if len(content) < LARGE_BYTES:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"type": "file", "path": path, "size": len(content), "oid": blob}
    sha256 = hashlib.sha256(content).hexdigest()
    return {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": hashlib.sha1(sha256.encode()).hexdigest(),
        "lfs": {"oid": sha256, "size": len(content), "pointerSize": 134},
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def log_message(self, *_: object) -> None:
        pass

    @property
    def hub(self) -> Hub:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def _answer(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.down:
            self._send(503, b"", {})
            return
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            self._api(parts[1:], body)
        elif parts[0] == "stored":
            repository = self.hub.repositories["/".join(parts[1:4])]
            self._content(repository, "/".join(parts[4:]), {})
        elif parts[0] == "datasets":
            self._resolve("/".join(parts[:3]), parts[3:])
        else:
            self._resolve("models/" + "/".join(parts[:2]), parts[2:])

    def _repository(self, name: str, revision: str) -> Repository | None:
        """The repository, or None after an error answer."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._error(401, "RepoNotFound")
        elif repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
            self._error(401, "GatedRepo")
        elif revision != repository.revision:
            self._error(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _api(self, parts: list[str], body: bytes) -> None:
        if len(parts) == 3 or parts[3] == "revision":
            self._information("/".join(parts[:3]), parts[4] if parts[4:] else "main")
            return
        kind, owner, name, call, revision = parts[:5]
        repository = self._repository(f"{kind}/{owner}/{name}", revision)
        if repository is None:
            return
        wanted = parse_qs(body.decode())["paths"] if call == "paths-info" else repository.files
        listing = [describe(p, repository.files[p]) for p in wanted if p in repository.files]
        self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _information(self, name: str, revision: str) -> None:
        """Of a repository at its newest commit, or at the one that is named."""
        there = self.hub.repositories.get(name)
        newest = there.revision if there is not None and revision == "main" else revision
        repository = self._repository(name, newest)
        if repository is not None:
            said = {"id": name.partition("/")[2], "sha": repository.revision}
            self._send(200, json.dumps(said).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, parts: list[str]) -> None:
        _, revision, *rest = parts
        path = "/".join(rest)
        repository = self._repository(name, revision)
        if repository is None:
            return
        if path not in repository.files:
            self._error(404, "EntryNotFound")
            return
        listed = describe(path, repository.files[path])
        commit = {"X-Repo-Commit": repository.sent_commit or repository.revision}
        if "lfs" in listed:
            sha256 = hashlib.sha256(repository.files[path]).hexdigest()
            # Another host, as on the real hub, where HEAD requests do not follow the redirect.
            stored = self.hub.url.replace("127.0.0.1", "localhost")
            location = f"{stored}/stored/{name}/{path}"
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(listed["size"])}
            self._send(302, b"", {**commit, **linked, "Location": location})
        else:
            self._content(repository, path, {**commit, "ETag": f'"{listed["oid"]}"'})

    def _content(self, repository: Repository, path: str, headers: dict[str, str]) -> None:
        content = repository.sent.get(path, repository.files[path])
        wanted = self.headers.get("Range")
        if wanted is None:
            self._send(200, content, headers)
            return
        start = int(wanted.removeprefix("bytes=").split("-")[0])
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206, content[start:], {**headers, "Content-Range": span})

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
