"""The pages in a real browser: as a person uses them, on a phone, in the dark, by keyboard."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from harness.board.leases import Leases
from harness.board.outcome import finish
from harness.board.queue import take
from harness.board.store import Store, open_store
from harness.board.submit import Handed, submit
from tests.board.examples import (
    ELSEWHERE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)
from tests.web.conftest import Server, serving

PAGES = [
    "/", "/seasons/autumn?show=unranked", "/seasons/autumn?show=every&sort=score", "/seasons",
    "/seasons/autumn/rules", "/submissions/1", "/submissions/2", "/submissions/5",
    "/submissions/4/changes", "/authors/alice", "/queue", "/fleet", "/submit", "/api", "/nothing",
]  # fmt: skip
LONG = "w" * 200


def without(what: str) -> NoReturn:
    """Something is missing: a reason to skip, or to fail where it is said to be there."""
    if os.environ.get("TRAINJUDGE_REQUIRE_BROWSER") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; without it these tests are skipped, or fail where it is said to be there."""
    program = shutil.which("chromium")
    if program is None:
        without("Chromium is not installed: `apt-get install chromium`")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab; whatever its console complains of, the content policy's refusals included, fails the test."""
    context = browser.new_context()
    context.set_default_timeout(15_000)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    yield tab
    context.close()
    # That a page is not there is what it says itself. And a test's server may end before its tab, whose
    # live parts call it again.
    expected = ("404", "ERR_CONNECTION_REFUSED")
    assert [each for each in complaints if not any(code in each for code in expected)] == []


@pytest.fixture(scope="module")
def filled(new_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Something of everything to look at: accepted, rejected, a copy, one that runs, one that waits."""
    path = tmp_path_factory.mktemp("filled") / "board.sqlite"
    shutil.copy(new_store, path)
    store = open_store(f"sqlite:///{path}")
    board_with(store, "alice", "bob")
    hand_in(store, "alice", 1, note=LONG)
    judge_next(store, accepted_result((0.30, 0.32, 0.31), log=LONG * 20))
    submit(store, Handed("bob", f"{LONG}.py", train_file(2), LONG))
    judge_next(store, rejected_result(message=LONG, log=LONG))
    submit(store, Handed("bob", "copy.py", b"# mine\n" + train_file(1)))
    judge_next(store, accepted_result())
    submit(store, Handed("alice", "tp.py", train_file(4).replace(b"dp_size", b"tp_size")))
    judge_next(store, accepted_result((0.29, 0.28, 0.29)))
    hand_in(store, "alice", 5)
    hand_in(store, "bob", 6)
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    Leases(store).renew(taken, f"· {LONG}\n")
    with serving(store) as server:
        yield server.url
    store.close()


def test_submit_watch_and_find_it_on_the_board(
    page: Page, store: Store, server: Server, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(train_file(7))
    page.goto(server.url)
    page.get_by_role("link", name="Submit").click()
    page.get_by_label("Train file").set_input_files(file)
    page.get_by_label("Note").fill("faster <b>")
    page.get_by_label("Your key").fill(key)
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_text("it parses")).to_be_visible()
    page.get_by_role("button", name="Send it in").click()
    expect(page.get_by_role("heading", name="mine.py")).to_be_visible()
    expect(page.get_by_text("faster <b>")).to_be_visible()
    own = page.url
    page.get_by_role("link", name="the queue").click()
    expect(page.get_by_role("link", name="#1 mine.py")).to_be_visible()

    # From here on nothing is clicked: the queue and then the submission's page follow by themselves.
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    Leases(store).renew(taken, "· timed run: run 1 of 3\n")
    expect(page.get_by_text("timed run: run 1 of 3")).to_be_visible()
    page.goto(own)
    expect(page.get_by_text("Being judged now")).to_be_visible()
    Leases(store).renew(taken, "· timed run: run 2 of 3\n")
    expect(page.get_by_text("timed run: run 2 of 3")).to_be_visible()
    finish(store, taken, accepted_result((0.40, 0.42, 0.41)), 30.0)
    expect(page.get_by_text("Accepted", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Checks")).to_be_visible()

    page.get_by_role("link", name="Board").click()
    row = page.get_by_role("row").filter(has_text="mine.py")
    expect(row).to_contain_text("alice")
    expect(row).to_contain_text("41.00 %")
    expect(row).to_contain_text("leads")


def test_it_works_without_javascript(
    browser: Browser, store: Store, server: Server, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(train_file(7))
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{server.url}/submit")
        page.get_by_label("Train file").set_input_files(file)
        page.get_by_label("Your key").fill(key)
        page.get_by_role("button", name="Check it").click()
        page.get_by_role("button", name="Send it in").click()
        expect(page.get_by_text("Waiting for its turn")).to_be_visible()
        judge_next(store, accepted_result())
        page.reload()
        expect(page.get_by_text("Accepted", exact=True)).to_be_visible()
        page.goto(server.url)
        expect(page.get_by_role("row").filter(has_text="mine.py")).to_be_visible()


def test_a_dot_of_the_chart_leads_to_its_submission(page: Page, filled: str) -> None:
    page.goto(filled)
    page.locator("svg.wide a[href='/submissions/1'] circle").click()
    expect(page).to_have_url(f"{filled}/submissions/1")


@pytest.mark.parametrize("address", PAGES)
def test_no_page_is_wider_than_a_phone(page: Page, filled: str, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(filled + address)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    # Tables that are wider scroll by themselves.
    outside = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .code, svg,"
        " .unseen') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    )
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_what_the_reader_has_chosen(
    page: Page, filled: str, scheme: str
) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(filled)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(ground.removeprefix("rgb(").split(",")[0])
    assert red < 64 if scheme == "dark" else red > 192


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_a_checker_of_accessibility_finds_nothing(
    page: Page, filled: str, address: str, scheme: str
) -> None:
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        without("axe-playwright-python is not installed")
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(filled + address)
    page.evaluate((Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    violations = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []


def test_the_board_is_used_by_keyboard(page: Page, filled: str) -> None:
    page.goto(filled)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["y"] >= 0  # type: ignore[index]
    page.keyboard.press("Enter")
    seen: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen
    # Past the navigation and past the chart's dots, whose table says the same.
    assert seen[0] == "Rules"
    assert "The record's history as a table" in seen
    assert "All entries" in seen
    assert not any(each.startswith("record:") for each in seen)


def test_a_part_that_changes_by_itself_keeps_the_focus(
    page: Page, store: Store, server: Server
) -> None:
    hand_in(store, "alice", 1)
    page.goto(f"{server.url}/queue")
    page.get_by_role("link", name="#1 train.py").focus()
    hand_in(store, "bob", 2)
    expect(page.get_by_role("link", name="#2 train.py")).to_be_visible()
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/submissions/1"


def test_pictures_for_a_person_to_look_at(
    page: Page, filled: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pictures")
    for width, scheme in ((1200, "light"), (360, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for number, address in enumerate(PAGES):
            page.goto(filled + address)
            picture = page.screenshot(path=folder / f"{number}-{scheme}.png", full_page=True)
            assert len(picture) > 5_000
