"""Pages: what stands on them, and what must not."""

import re
import time
from urllib.parse import quote

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from harness.board import events as ev
from harness.board.leases import Leases
from harness.board.organise import SeasonPlan, add_author, invalidate, new_key, open_season
from harness.board.queue import WorkerId, take
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Handed, cancel, submit
from harness.errors import Code
from harness.fleet.canaries import Canary, record
from harness.web.app import make_app
from harness.web.looking import prepare
from tests.board.examples import (
    ELSEWHERE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)
from tests.web.conftest import HOSTILE, words


def judged(store: Store, author: str, number: int, mfu: float) -> int:
    submission = hand_in(store, author, number)
    judge_next(store, accepted_result((mfu, mfu, mfu)))
    return submission


def test_an_empty_store_says_what_to_do(empty: Store) -> None:
    client = TestClient(make_app(empty))
    assert "validator season new" in client.get("/").text
    assert client.get("/queue").status_code == 200
    assert "No season is open" in words(client.get("/submit").text)


def test_what_the_first_visitor_would_wait_for_is_done_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(store, "alice", 1, 0.41)
    app = make_app(store)
    prepare(app.state.site)

    def again(*_: object) -> None:
        raise AssertionError("ranked again")

    monkeypatch.setattr("harness.board.leaderboard.rank_season", again)
    assert "41.00 %" in TestClient(app).get("/").text


def test_a_long_queue_has_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.web.looking.QUEUE_SHOWN", 2)
    for number in range(5):
        hand_in(store, "alice", number)
    client = TestClient(make_app(store))
    first, last = client.get("/queue").text, client.get("/queue?page=3").text
    assert 'href="?page=2"' in first and "Page 1 of 3" in words(first)
    assert "← Sooner" in last and 'rel="next"' not in last
    shown = [
        re.findall(r'class="strong" href="/submissions/(\d+)"', page) for page in (first, last)
    ]
    assert shown == [["1", "2"], ["5"]]
    for beyond in ("9", "99999999", "-1", "x"):
        assert client.get(f"/queue?page={beyond}").status_code == 200
    assert "The first one" in words(client.get("/queue?page=9").text)


@pytest.mark.parametrize("seasons", [0, 1])
def test_a_new_board_can_be_prepared(empty: Store, seasons: int) -> None:
    if seasons:
        board_with(empty, "alice")
    prepare(make_app(empty).state.site)


def test_the_board_marks_the_leader_and_shows_score_spread_and_runs(
    store: Store, client: TestClient
) -> None:
    hand_in(store, "alice", 1)
    judge_next(store, accepted_result((0.40, 0.42, 0.41)))
    judged(store, "bob", 2, 0.30)
    page = client.get("/").text
    rows = re.findall(r"<tr.*?</tr>", page.partition('class="board"')[2], re.S)
    assert 'class="leader"' in rows[1]
    assert "1 leads alice" in words(rows[1])
    assert "41.00 % 40.00–42.00 % 3 runs" in words(rows[1])
    assert "bob" in rows[2]
    assert 'class="leader"' not in rows[2]


def test_the_board_says_that_nothing_is_compared_with_a_leader_that_failed(
    empty: Store,
) -> None:
    board_with(empty, "alice", rule=ScoringRule())
    hand_in(empty, "alice")
    judge_next(empty, accepted_result())
    client = TestClient(make_app(empty))
    assert "until the organiser has looked" not in client.get("/seasons/autumn").text
    with empty.write() as writer:
        writer.append(ev.AlarmRaised(submission=1, text="it failed", stops_pairs=True))
    page = words(client.get("/seasons/autumn").text)
    assert "Nothing is compared with #1 until the organiser has looked" in page
    assert client.get("/api/v1/board").json()["stopped"] is True


def test_an_author_has_one_row_and_all_of_theirs_on_demand(
    store: Store, client: TestClient
) -> None:
    judged(store, "alice", 1, 0.3)
    judged(store, "alice", 2, 0.4)
    assert client.get("/").text.count('<th scope="row">') == 1
    assert client.get("/seasons/autumn?show=every").text.count('<th scope="row">') == 2


def test_copies_and_rejections_are_shown_with_the_reason(store: Store, client: TestClient) -> None:
    first = judged(store, "alice", 1, 0.3)
    copy = submit(store, Handed("bob", "mine.py", b"# mine\n" + train_file(1)))
    judge_next(store, accepted_result((0.5,)))
    hand_in(store, "bob", 3)
    judge_next(store, rejected_result())
    page = client.get("/seasons/autumn?show=unranked").text
    assert f"#{copy} mine.py dp 2 The same program as an earlier submission. #{first}" in words(
        page
    )
    assert "Rejected." in words(page)
    assert "mine.py" not in client.get("/").text


def test_sorting_turns_the_order_and_says_so(store: Store, client: TestClient) -> None:
    judged(store, "alice", 1, 0.3)
    judged(store, "bob", 2, 0.4)
    up = client.get("/seasons/autumn?sort=score&order=reverse").text
    body = up.partition("<tbody>")[2].rpartition('<table class="board">')[2]
    assert body.index("/authors/alice") < body.index("/authors/bob")
    assert 'aria-sort="ascending"' in up
    down = client.get("/seasons/autumn?sort=score").text.rpartition('<table class="board">')[2]
    assert down.index("/authors/bob") < down.index("/authors/alice")
    assert 'aria-sort="descending"' in down


def test_a_strategy_can_be_asked_for(store: Store, client: TestClient) -> None:
    judged(store, "alice", 1, 0.3)
    source = train_file(2).replace(b"dp_size", b"tp_size")
    submit(store, Handed("bob", "tp.py", source))
    judge_next(store, accepted_result((0.4,)))
    page = client.get("/seasons/autumn", params={"strategy": "tp 2"}).text
    board = page.rpartition('<table class="board">')[2]
    assert "/authors/bob" in board
    assert "/authors/alice" not in board


@pytest.mark.parametrize(
    "query", ["page=0", "page=99999999999999", "page=x", "sort=drop", "show=%00", "strategy=%1b"]
)
def test_an_address_that_makes_no_sense_gives_a_board_still(
    store: Store, client: TestClient, query: str
) -> None:
    judged(store, "alice", 1, 0.3)
    assert client.get(f"/seasons/autumn?{query}").status_code == 200


def test_the_records_are_a_chart_with_links_and_a_table(store: Store, client: TestClient) -> None:
    first = judged(store, "alice", 1, 0.3)
    second = judged(store, "bob", 2, 0.4)
    page = client.get("/").text
    chart = page.partition('<svg class="chart wide"')[2].partition("</svg>")[0]
    assert f'href="/submissions/{first}"' in chart
    assert f'href="/submissions/{second}"' in chart
    table = page.partition("history as a table")[2].partition("</table>")[0]
    assert "bob" in table
    assert "33.33 %" in table  # 0.4 is a third ahead of 0.3


def test_a_submission_shows_every_check_and_where_the_time_went(
    store: Store, client: TestClient
) -> None:
    number = judged(store, "alice", 1, 0.4)
    text = words(client.get(f"/submissions/{number}").text)
    assert "Accepted" in text
    assert "tensor update error" in text
    assert "within" in text
    assert "timed on the clock" in text
    assert "57.00 GiB" in text  # of rank 0
    assert "6 steps, weights from 0.998 to 1.004" in text


def test_a_rejection_says_which_check_and_by_how_much(store: Store, client: TestClient) -> None:
    number = hand_in(store, "alice")
    judge_next(store, rejected_result())
    page = client.get(f"/submissions/{number}").text
    assert "Rejected" in words(page)
    assert "update_mismatch" in page
    row = page.partition("update error")[2].partition("</tr>")[0]
    assert "0.31" in row
    assert "0.016" in row
    assert "over" in row
    assert "model.layers.0.mlp.experts.gate_up_proj[5]" in page


def test_our_own_failure_is_not_held_against_the_author(store: Store, client: TestClient) -> None:
    number = hand_in(store, "alice")
    judge_next(store, error_result())
    text = words(client.get(f"/submissions/{number}").text)
    assert "Waiting for its turn" in text
    assert "Next in the queue" in text
    assert "Rejected 0" in words(client.get("/authors/alice").text)


def test_whatever_came_from_outside_is_harmless_on_every_page(
    store: Store, client: TestClient
) -> None:
    number = submit(store, Handed("alice", HOSTILE, train_file(1), note=HOSTILE))
    judge_next(store, rejected_result(Code.IMPORT_FAILED, message=HOSTILE, log=HOSTILE))
    hand_in(store, "bob", 2, note=HOSTILE)
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    Leases(store).renew(taken, HOSTILE)
    invalidate(store, number, HOSTILE)
    pages = [
        "/queue", f"/submissions/{number}", f"/submissions/{taken.submission}", "/authors/alice",
        "/seasons/autumn?show=unranked", "/seasons/autumn/feed.atom", f"/authors/{HOSTILE[:60]}",
        f"/seasons/{HOSTILE[:60]}",
    ]  # fmt: skip
    for address in pages:
        text = client.get(quote(address, safe="/?=")).text
        assert "<script>alert" not in text, address
        assert not set("\x1b\x00\x07\u202e\u202c") & set(text), address
    assert "red" in client.get(f"/submissions/{number}").text  # it is there, without its colour


def test_hostile_source_is_shown_as_text(store: Store, client: TestClient) -> None:
    source = train_file(1) + '\n# </code><script>alert(1)</script> "\u202e" \x1b[31m\n'.encode()
    number = submit(store, Handed("alice", "a.py", source))
    judge_next(store, accepted_result())
    page = client.get(f"/submissions/{number}").text
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    raw = client.get(f"/submissions/{number}/source.py")
    assert raw.content == source
    assert raw.headers["content-type"].startswith("text/plain")


def test_a_source_is_hidden_until_it_is_judged(store: Store, client: TestClient, key: str) -> None:
    number = hand_in(store, "alice")
    assert "inner_steps" not in client.get(f"/submissions/{number}").text
    assert client.get(f"/submissions/{number}/source.py").status_code == 409
    own = client.post(f"/submissions/{number}/own", data={"key": key})
    assert "inner_steps" in own.text
    assert own.headers["cache-control"] == "no-store"
    others = client.post(f"/submissions/{number}/own", data={"key": new_key(store, "bob")})
    assert "inner_steps" not in others.text
    judge_next(store, accepted_result())
    assert "inner_steps" in client.get(f"/submissions/{number}").text


def test_with_the_other_rule_source_log_and_changes_stay_hidden(empty: Store) -> None:
    board_with(empty, "alice", rule=ScoringRule(pairs=0, source_visible="season_end"))
    client = TestClient(make_app(empty))
    for number in (1, 2):
        hand_in(empty, "alice", number)
        judge_next(empty, accepted_result(log="secret line 7"))
    page = client.get("/submissions/2").text
    assert "inner_steps" not in page
    assert "secret line" not in page
    assert client.get("/submissions/2/changes").status_code == 409
    assert client.get("/api/v1/evaluations/2").json()["log"] == ""


def test_what_was_cancelled_unjudged_stays_hidden(store: Store, client: TestClient) -> None:
    number = hand_in(store, "alice")
    cancel(store, number)
    assert "inner_steps" not in client.get(f"/submissions/{number}").text


def test_changes_are_shown_against_the_earlier_one(store: Store, client: TestClient) -> None:
    for line in (b"BUCKET = 25\n", b"BUCKET = 50  # <b>\n"):
        submit(store, Handed("alice", "train.py", line + train_file(1)))
        judge_next(store, accepted_result())
    page = client.get("/submissions/2/changes").text
    assert "- BUCKET = 25" in words(page).replace("-BUCKET", "- BUCKET")
    assert "+BUCKET = 50 # &lt;b&gt;" in words(page).replace("+ BUCKET", "+BUCKET")
    assert client.get("/submissions/1/changes").status_code == 404


def test_the_queue_shows_turns_and_progress(store: Store, client: TestClient) -> None:
    for author, number in (("alice", 1), ("alice", 2), ("bob", 3)):
        hand_in(store, author, number)
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    assert taken.submission == 1
    Leases(store).renew(taken, "· loading the model\n· timed run: run 1 of 2\n")
    text = words(client.get("/queue").text)
    assert "Being judged 1 #1 train.py" in text
    assert "timed run: run 1 of 2" in text
    assert text.index("#3 train.py") < text.index("#2 train.py")  # alice has just had a turn


def test_the_nodes_of_a_fleet_are_shown_as_the_store_knows_them(
    store: Store, client: TestClient
) -> None:
    assert "No node of a fleet was heard from" in words(client.get("/fleet").text)
    for host in ("left", "right"):
        worker = WorkerId(f"{host} node {host}-12ab of somewhere else 1 2", host)
        Leases(store).seen(worker, "waiting")
    Leases(store).seen(ELSEWHERE, "waiting")
    hand_in(store, "alice", 1)
    canary = Canary("train.py", b"pass", 2)
    record(store, canary, HPARAMS_SHA256, "left", rejected_result(message="<b>wrong</b>"))
    page = client.get("/fleet").text
    text = words(page)
    assert "1 evaluation waits" in text
    assert "left excluded from qwen3-30b-a3b: it rejects the canary, which is right" in text
    assert "right waiting none yet" in text
    assert "elsewhere" not in text
    assert "<b>wrong" not in page


def test_an_author_page_counts_rejections(store: Store, client: TestClient) -> None:
    judged(store, "alice", 1, 0.3)
    hand_in(store, "alice", 2)
    judge_next(store, rejected_result())
    hand_in(store, "alice", 3)
    text = words(client.get("/authors/alice").text)
    assert "Handed in 3 Accepted 1 Rejected 1 Waiting 1" in text
    assert "rank 1" in text


@pytest.mark.parametrize(
    "address",
    [
        "/submissions/7",
        "/submissions/0",
        "/submissions/" + "9" * 18,
        "/submissions/" + "9" * 5_000,
        "/submissions/-1",
        "/submissions/1e3",
        "/submissions/7/source.py",
        "/submissions/7/changes",
        "/authors/nobody",
        "/seasons/winter",
        "/seasons/winter/rules",
        "/seasons/winter/feed.atom",
        "/static/../app.py",
        "/static/nothing.css",
        "/nothing",
    ],
)
def test_what_is_not_there_is_a_calm_page(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 404
    assert "Traceback" not in answer.text
    assert "To the board" in answer.text


def test_seasons_and_rules_are_readable(store: Store, client: TestClient) -> None:
    open_season(
        store,
        SeasonPlan("later", "0" * 64, "other", 4, "", ScoringRule(), starts_at=store.now() + 9e6),
    )
    text = words(client.get("/seasons").text)
    assert "autumn" in text
    assert "Begins" in text
    rules = words(client.get("/seasons/later/rules").text)
    assert "median" in rules
    assert "half_life_hours" in rules
    assert "up to 10 pairs" in rules
    assert "autumn" in client.get("/").text  # what runs comes before what is newer


def test_a_page_of_many_is_cut_and_leads_on(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.web.boards.PAGE", 2)
    board_with(empty, rule=ScoringRule(pairs=0))
    for number in range(3):
        add_author(empty, f"author-{number}")
        judged(empty, f"author-{number}", number, 0.2 + number / 10)
    client = TestClient(make_app(empty))
    first, second = client.get("/").text, client.get("/seasons/autumn?page=2").text
    assert first.count('<th scope="row">') == 2
    assert "page=2" in first
    assert second.count('<th scope="row">') == 1
    assert "author-0<" in second


def test_no_request_needs_two_connections_at_once(
    store: Store, client: TestClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it otherwise, as many requests as there are connections could wait for each other."""
    judged(store, "alice", 1, 0.3)
    judged(store, "alice", 2, 0.4)
    hand_in(store, "bob", 3)

    def as_postgresql() -> float:
        with store.read():
            return time.time()

    monkeypatch.setattr(store, "now", as_postgresql)
    held, most = 0, 0

    def taken(*_: object) -> None:
        nonlocal held, most
        held += 1
        most = max(most, held)

    def given(*_: object) -> None:
        nonlocal held
        held -= 1

    event.listen(store.engine, "checkout", taken)
    event.listen(store.engine, "checkin", given)
    for address in (
        "/", "/seasons", "/seasons/autumn/rules", "/seasons/autumn/feed.atom", "/submissions/2",
        "/submissions/3", "/submissions/2/changes", "/submissions/2/source.py", "/authors/alice",
        "/queue", "/submit", "/readyz", "/metrics", "/api/v1/board", "/api/v1/records",
        "/api/v1/submissions/2", "/api/v1/evaluations/2", "/api/v1/submissions/2/source",
        "/api/v1/queue", "/api/v1/seasons", "/api/v1/authors/alice", "/api/v1/events",
    ):  # fmt: skip
        assert client.get(address).status_code == 200
        assert most == 1, address
    bearer = {"Authorization": f"Bearer {key}"}
    assert client.post("/api/v1/check", content=train_file(4), headers=bearer).status_code == 200
    posted = client.post("/api/v1/submissions", content=train_file(4), headers=bearer)
    assert posted.status_code == 201
    assert client.post("/api/v1/submissions/4/cancel", headers=bearer).status_code == 200
    assert (most, held) == (1, 0)


def test_a_board_that_was_shown_before_follows_what_happens(
    store: Store, client: TestClient
) -> None:
    judged(store, "alice", 1, 0.3)
    for address in ("/", "/seasons/autumn?show=every", "/seasons/autumn?sort=author"):
        assert "40.00 %" not in client.get(address).text
    judged(store, "bob", 2, 0.4)
    for address in ("/", "/seasons/autumn?show=every", "/seasons/autumn?sort=author"):
        assert "40.00 %" in client.get(address).text
