"""The connection between judge and agent: whole words, of both who have the key, and of nobody else."""

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from harness.errors import InputError
from harness.nodes.channel import MOST_WAITING, Channel, LostError, write_or_close
from harness.nodes.key import client_side, make_key, server_side
from harness.nodes.words import (
    FROM_AGENT,
    FROM_JUDGE,
    MOST_BYTES,
    PORTION,
    FromRank,
    Ping,
    Put,
    Release,
)

Talk = Callable[[Channel], Awaitable[None]]


def between(agent: Talk, judge: Talk) -> None:
    """Run both ends of a plain connection."""

    async def both() -> None:
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await agent(Channel(reader, writer))
                served.set_result(None)
            except BaseException as error:
                served.set_exception(error)
            writer.close()

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await judge(Channel(reader, writer))
            writer.close()
            await served

    asyncio.run(asyncio.wait_for(both(), 20))


def test_words_of_the_greatest_length_arrive_whole_and_in_order() -> None:
    words = [Ping(1), Put("train.py", os.urandom(PORTION), held=False, last=True), Ping(2)]

    async def agent(channel: Channel) -> None:
        assert [await channel.receive(FROM_JUDGE) for _ in words] == words

    async def judge(channel: Channel) -> None:
        for word in words:
            await channel.send(word)

    between(agent, judge)


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">I", MOST_BYTES + 1),
        struct.pack(">I", 3) + b"\xff\xff\xff",
        struct.pack(">I", 10) + b"short",
        struct.pack(">I", 2) + msgspec.msgpack.encode({"type": "ping"})[:2],
        b"",
    ],
    ids=["too long", "no message", "cut off", "half of one", "nothing"],
)
def test_whoever_does_not_speak_as_we_do_is_lost(raw: bytes) -> None:
    async def agent(channel: Channel) -> None:
        channel._writer.write(raw)

    async def judge(channel: Channel) -> None:
        with pytest.raises(LostError):
            await channel.receive(FROM_AGENT)

    between(agent, judge)


@pytest.mark.parametrize("name", ["../inbox", "a/b", ".hidden", "", "x" * 101])
def test_a_file_is_put_by_a_name_that_leads_nowhere_else(name: str) -> None:
    encoded = msgspec.msgpack.encode(Release(name))
    with pytest.raises(msgspec.ValidationError):
        FROM_JUDGE.decode(encoded)


def test_a_portion_is_no_longer_than_is_allowed() -> None:
    with pytest.raises(msgspec.ValidationError):
        FROM_AGENT.decode(msgspec.msgpack.encode(FromRank(0, bytes(PORTION + 1), 0)))


def test_whoever_does_not_read_is_closed_and_not_waited_for() -> None:
    async def agent(channel: Channel) -> None:
        for _ in range(MOST_WAITING // PORTION + 40):
            write_or_close(channel._writer, bytes(PORTION))
        assert channel._writer.is_closing()
        channel._writer.transport.abort()

    async def judge(channel: Channel) -> None:
        await asyncio.sleep(0.2)

    between(agent, judge)


def handshake(server_key: Path, client_key: Path) -> bytes:
    """What the client gets of a server that says b"heard" to whoever has its key."""

    async def both() -> bytes:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"heard")
            writer.close()

        context = server_side(server_key)
        async with await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                reader, _ = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=client_side(client_key)
                )
                return await reader.read()
            except OSError:
                return b""

    return asyncio.run(asyncio.wait_for(both(), 20))


def test_only_who_has_the_key_is_heard_on_either_side(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        make_key(tmp_path / name)
    assert handshake(tmp_path / "ours", tmp_path / "ours") == b"heard"
    assert handshake(tmp_path / "ours", tmp_path / "theirs") == b""


def test_a_key_is_made_once_and_for_one_user(tmp_path: Path) -> None:
    key = tmp_path / "agents.pem"
    make_key(key)
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="File exists"):
        make_key(key)
    key.chmod(0o640)
    with pytest.raises(InputError, match="other users can read"):
        client_side(key)


@pytest.mark.parametrize("text", ["", "no key at all"])
def test_a_file_that_is_no_key_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    file = tmp_path / "agents.pem"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InputError, match="validator agent key"):
        server_side(file)
