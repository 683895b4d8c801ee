"""Headers and pages: nothing inline, nothing from elsewhere, nothing framed."""

import re

import pytest
from starlette.testclient import TestClient

from harness.board.store import Store
from harness.web.app import make_app
from tests.board.examples import accepted_result, hand_in, judge_next

ADDRESSES = [
    "/", "/seasons", "/seasons/autumn/rules", "/queue", "/fleet", "/submit", "/api", "/authors/alice",
    "/submissions/1", "/nothing", "/openapi.json", "/api/v1/board", "/metrics",
    "/seasons/autumn/feed.atom", "/static/board.css", "/healthz",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_carries_the_headers(store: Store, client: TestClient, address: str) -> None:
    hand_in(store, "alice")
    judge_next(store, accepted_result())
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "set-cookie" not in headers


@pytest.mark.parametrize("address", [each for each in ADDRESSES if not each.startswith("/static")])
def test_no_page_needs_what_the_policy_forbids(
    store: Store, client: TestClient, address: str
) -> None:
    hand_in(store, "alice")
    judge_next(store, accepted_result())
    answer = client.get(address)
    if "html" not in answer.headers["content-type"]:
        return
    page = answer.text
    assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]*src=\"/static/)", page)
    for loaded in re.findall(
        r"(?:src|<link rel=\"(?:icon|stylesheet)\"[^>]*href)=\"([^\"]*)\"", page
    ):
        assert loaded.startswith("/static/"), loaded


def test_a_defect_of_ours_says_nothing_of_itself(
    store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(store, "read", breaks)
    for address in ("/queue", "/api/v1/queue"):
        answer = client.get(address)
        assert answer.status_code == 500
        assert "secret detail" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.json()["code"] == "internal"


def test_static_files_may_be_kept_for_ever_by_their_hash(client: TestClient) -> None:
    page = client.get("/queue").text
    address = re.search(r"/static/board\.css\?v=\w+", page)
    assert address is not None
    assert "immutable" in client.get(address[0]).headers["cache-control"]
    assert "cache-control" not in client.get("/static/board.css").headers
    assert client.get("/queue").headers["cache-control"] == "no-cache"


def test_the_description_of_the_api_is_complete_and_local(store: Store) -> None:
    client = TestClient(make_app(store))
    described = client.get("/openapi.json").json()
    assert "/api/v1/submissions" in described["paths"]
    page = client.get("/api").text
    for path in described["paths"]:
        assert path in page
    assert client.get("/docs").status_code == 404
