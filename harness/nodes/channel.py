"""A connection between judge and agent: words, each with its length before it."""

import asyncio
import struct
from contextlib import suppress
from typing import Final, TypeVar

import msgspec

from harness.nodes.words import MOST_BYTES, Word

#: Both sides answer at once, whatever they do besides; the judge says something every two seconds.
SILENCE_SECONDS: Final = 30.0
CLOSING_SECONDS: Final = 2.0
_LENGTH: Final = struct.Struct(">I")
#: Bytes for a rank, or from one, that nobody has read yet; the longest message has room.
MOST_WAITING: Final = 64 << 20
_ENCODER: Final = msgspec.msgpack.Encoder()
Found = TypeVar("Found")


class LostError(Exception):
    """The other side is gone, or does not speak as it should; the text says which."""


class Channel:
    """One end. Used by tasks of one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, word: Word) -> None:
        """Returns when the rest of what waits is little. Raises LostError."""
        body = _ENCODER.encode(word)
        assert len(body) <= MOST_BYTES, type(word).__name__
        try:
            self._writer.write(_LENGTH.pack(len(body)) + body)
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            raise LostError(f"it reads nothing for {SILENCE_SECONDS:g} seconds") from None
        except OSError as error:
            raise LostError(str(error) or type(error).__name__) from None

    async def receive(self, decoder: "msgspec.msgpack.Decoder[Found]") -> Found:
        """The next word. Raises LostError."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MOST_BYTES:
                raise LostError(f"a word of {length} bytes")
            return decoder.decode(await self._reader.readexactly(length))
        except asyncio.IncompleteReadError:
            raise LostError("it has closed the connection") from None
        except OSError as error:
            raise LostError(str(error) or type(error).__name__) from None
        except msgspec.DecodeError as error:
            raise LostError(f"it is of another version, or no agent of ours ({error})") from None

    async def close(self) -> None:
        """What has been sent is still delivered, if somebody reads it."""
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._writer.wait_closed()


def write_or_close(writer: asyncio.StreamWriter, data: bytes) -> None:
    """For whoever is at the other end, without waiting: a rank that floods, or that does not read, must not
    keep us from hearing the machine, which would be lost then and the rank's failure ours.
    """
    if writer.transport.get_write_buffer_size() > MOST_WAITING:
        writer.close()
    elif not writer.is_closing():
        writer.write(data)
