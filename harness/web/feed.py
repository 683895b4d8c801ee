"""An Atom feed of a season's records, newest first."""

import xml.etree.ElementTree as ET
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from harness.board.figures import iso, percent
from harness.board.views import SeasonView, season_view
from harness.protocol.text import printable
from harness.web.boards import RecordRow
from harness.web.pages import site

ATOM: Final = "http://www.w3.org/2005/Atom"
ENTRIES: Final = 50


def feed(request: Request) -> Response:
    here = site(request)
    with here.store.read() as session:
        season = season_view(session, request.path_params["name"])
    records = here.boards.records(season.id)[::-1][:ENTRIES]
    text = document(season, records, here.base(request))
    return Response(text, media_type="application/atom+xml", headers={"Cache-Control": "no-cache"})


def document(season: SeasonView, records: tuple[RecordRow, ...], base: str) -> bytes:
    """The feed; the ids in it do not depend on where the site is."""
    root = ET.Element("feed", xmlns=ATOM)
    name = f"urn:trainjudge:season:{season.name}"
    page = f"{base}/seasons/{season.name}"
    _text(root, "title", f"Records of {season.name}")
    _text(root, "id", name)
    _text(root, "updated", iso(records[0].at if records else season.opened_at))
    ET.SubElement(root, "link", rel="alternate", href=page)
    ET.SubElement(root, "link", rel="self", href=f"{page}/feed.atom")
    for record in records:
        entry = ET.SubElement(root, "entry")
        ahead = f", {percent(record.jump, 1)} ahead" if record.jump else ""
        _text(entry, "title", f"{percent(record.score)} MFU by {record.author}{ahead}")
        _text(entry, "id", f"{name}:record:{record.submission}:{record.at:.0f}")
        _text(entry, "updated", iso(record.at))
        _text(ET.SubElement(entry, "author"), "name", record.author)
        ET.SubElement(
            entry, "link", rel="alternate", href=f"{base}/submissions/{record.submission}"
        )
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _text(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, tag).text = printable(text)


ROUTES: Final = [Route("/seasons/{name}/feed.atom", feed)]
