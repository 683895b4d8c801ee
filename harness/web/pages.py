"""Templates: one environment in which nothing foreign can become markup or move a terminal's cursor."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import HTMLResponse

from harness.board.store import Store
from harness.protocol.text import printable
from harness.web import words
from harness.web.boards import Boards
from harness.web.live import Live
from harness.web.tickets import Tickets

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"


class _Number(Convertor[int]):
    """A row's number in an address; longer ones are no address of ours."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _Number())


@dataclass(frozen=True)
class Site:
    """What all pages share.

    Attributes:
        global_batches: of the benchmarks whose hparams this server has, by the file's hash; with it
            `check` can say how rows are dealt.
        public_url: where the site is seen from outside, without a slash at its end; empty: as asked for.
    """

    store: Store
    boards: Boards
    live: Live
    tickets: Tickets
    global_batches: Mapping[str, int]
    public_url: str

    def base(self, request: Request) -> str:
        """For links that are read elsewhere, as in a feed."""
        return self.public_url or str(request.base_url).rstrip("/")


def site(request: Request) -> Site:
    """The site that a request came to."""
    found = request.app.state.site
    assert isinstance(found, Site)
    return found


def render(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """A page. `values` are for the template."""
    text = _environment().get_template(template).render(path=request.url.path, **values)
    # What a page shows changes any time, and some of it is only for whoever sent a key.
    kept = "no-store" if request.method == "POST" else "no-cache"
    return HTMLResponse(text, status, {"Cache-Control": kept, **(headers or {})})


def compile_pages() -> None:
    """Now, and not when the first of each is asked for."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= words.FILTERS
    environment.globals["static"] = _static_url
    return environment


def _harmless(value: object) -> object:
    """Whatever is printed on a page passes here, before it is escaped."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return printable(value)
    return value


@cache
def _static_url(name: str) -> str:
    """With a hash of the content, so that browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:12]}"


def number_of(given: str, digits: int) -> int | None:
    """A number of an address; None for anything else, and for one with more digits."""
    return int(given) if given.isascii() and given.isdecimal() and len(given) <= digits else None
