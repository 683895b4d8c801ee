"""Frames: a 4-byte big-endian length, then that many bytes of JSON."""

import socket
import struct

import msgspec

from harness.protocol.messages import FromJudge, Message, parse_from_judge

_LENGTH = struct.Struct(">I")
MAX_FRAME = 64 * 1024 * 1024


def frame(message: Message) -> bytes:
    """The bytes that carry `message`. Raises ValueError if it is over its type's limit."""
    body = msgspec.json.encode(message)
    if len(body) > message.max_bytes:
        raise ValueError(f"{type(message).__name__} of {len(body)} bytes is over its limit")
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Reassembles frames from a stream that arrives in any portions. Never holds more than `limit`."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data

    def pop(self, limit: int) -> bytes | None:
        """The next whole body, or None. Raises ValueError for a frame longer than `limit` bytes."""
        if len(self._data) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._data)
        if length > limit:
            raise ValueError(f"a frame of {length} bytes where at most {limit} are allowed")
        end = _LENGTH.size + length
        if len(self._data) < end:
            return None
        body = bytes(self._data[_LENGTH.size : end])
        del self._data[:end]
        return body


class RankSocket:
    """A rank's end of its socket: blocking, one message at a time."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._buffer = FrameBuffer()

    def send(self, message: Message) -> None:
        self._socket.sendall(frame(message))

    def receive(self) -> FromJudge:
        """The judge's next message. Raises EOFError when the judge has hung up."""
        while (body := self._buffer.pop(MAX_FRAME)) is None:
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError("the judge closed the socket")
            self._buffer.feed(data)
        return parse_from_judge(body)
