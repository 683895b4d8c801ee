"""Live parts: what a stream says, and that watching costs one look a second however many watch."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from harness.board.leases import Leases
from harness.board.queue import take
from harness.board.store import Store
from harness.web.live import Live, last_line
from harness.web.problems import RequestError
from tests.board.examples import ELSEWHERE, HPARAMS_SHA256, accepted_result, hand_in, judge_next
from tests.web.conftest import Server


async def some(stream: AsyncIterator[str], count: int) -> list[str]:
    found = []
    async with asyncio.timeout(20):
        async for message in stream:
            found.append(message)
            if len(found) == count:
                break
    return found


def fields(message: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in message.strip().splitlines())


def test_a_page_is_told_of_progress_and_of_change(store: Store) -> None:
    hand_in(store, "alice")
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    Leases(store).renew(taken, "· loading the model\n")

    async def watch() -> None:
        stream = Live(store, 0.01).pages()
        first = [fields(message) for message in await some(stream, 2)]
        assert [each["event"] for each in first] == ["changed", "progress"]
        assert json.loads(first[1]["data"]) == {"evaluation": 1, "line": "loading the model"}
        await asyncio.to_thread(Leases(store).renew, taken, "· loading the model\n· timed run\n")
        [second] = [fields(message) for message in await some(stream, 1)]
        assert json.loads(second["data"])["line"] == "timed run"

    asyncio.run(watch())


def test_a_program_gets_every_event_once_and_no_key(store: Store, key: str) -> None:
    hand_in(store, "alice")

    async def watch() -> None:
        stream = Live(store, 0.01).events(0)
        seen = [fields(message) for message in await some(stream, 5)]
        kinds = [json.loads(each["data"])["kind"] for each in seen]
        assert kinds == [
            "season_opened", "author_added", "author_added", "submitted", "evaluation_queued",
        ]  # fmt: skip
        await asyncio.to_thread(judge_next, store, accepted_result())
        more = [fields(message) for message in await some(stream, 2)]
        assert int(more[0]["id"]) > int(seen[-1]["id"])
        assert [json.loads(each["data"])["kind"] for each in more] == [
            "evaluation_started", "evaluation_finished",
        ]  # fmt: skip

    asyncio.run(watch())


def test_many_who_watch_are_one_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    read = store.read

    def counted() -> object:
        nonlocal looks
        looks += 1
        return read()

    monkeypatch.setattr(store, "read", counted)

    async def watch() -> None:
        live = Live(store, 60.0)
        await asyncio.gather(*(some(live.pages(), 1) for _ in range(50)))

    asyncio.run(watch())
    assert looks == 1


def test_one_more_than_can_be_fed_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.web.live.MAX_STREAMS", 1)

    async def watch() -> None:
        live = Live(store, 0.01)
        stream = live.pages()
        live.admit()
        await some(stream, 1)
        with pytest.raises(RequestError) as refused:
            live.admit()
        assert refused.value.status == 503
        await stream.aclose()
        live.admit()

    asyncio.run(watch())


def test_a_stream_goes_on_where_it_broke_off(store: Store, server: Server) -> None:
    hand_in(store, "alice")
    last = store.last_event()
    connection = server.connect()
    connection.request("GET", "/api/v1/events/stream", headers={"Last-Event-ID": str(last - 1)})
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [answer.readline().decode().strip() for _ in range(3)]
    assert lines[0] == "event: event"
    assert lines[1] == f"id: {last}"
    assert json.loads(lines[2].removeprefix("data: "))["kind"] == "evaluation_queued"
    answer.close()
    connection.close()


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        ("", ""),
        ("· one\n· two\n\n", "two"),
        ("a\x1b[2Jb\n", "a\N{REPLACEMENT CHARACTER}[2Jb"),
        ("x" * 5_000, "x" * 200),
    ],
)
def test_the_last_line_that_says_something_is_shown(progress: str, line: str) -> None:
    assert last_line(progress) == line
