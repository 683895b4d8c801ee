"""What is fuzzed: each target takes bytes, and fails by raising anything that is not declared.

Seeds are made by the project's own code, so that mutation begins at something that is nearly right. What
was found lies in `tests/fuzz/finds/TARGET/` and is fed again by `test_finds.py`.
"""

import json
import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from harness.benchmark import hparams
from harness.errors import Code, InputError, SubmissionError
from harness.opening.plan import plan_opening
from harness.protocol.messages import (
    Commitment,
    Done,
    Failed,
    Hello,
    MalformedError,
    Message,
    Opened,
    Piece,
    Progress,
    Ready,
    Stage,
    parse_from_rank,
)
from harness.protocol.wire import FrameBuffer, frame
from harness.submission import source_facts
from harness.submission.read import facts_of, strategy_of
from harness.tensors.boxes import TensorSpec
from harness.tensors.shards import DTYPES, ShardError, read_shard
from tests.project import ROOT

FINDS: Final = ROOT / "tests" / "fuzz" / "finds"
LAYOUT: Final = {
    "a": TensorSpec((6, 4), "float32"),
    "b": TensorSpec((8,), "bfloat16"),
    "c": TensorSpec((), "float32"),
}
MOST_BYTES: Final = 4096
WORLD: Final = 4
FRAME_LIMIT: Final = Message.max_bytes


@dataclass(frozen=True)
class Target:
    """Attributes:
    feed: raises for a defect of ours.
    seeds: inputs to start from.
    words: what mutation may put in as a whole.
    """

    feed: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[str, ...] = ()


# --- frames ---------------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """The first byte says in which portions the rest arrives; what comes out must not depend on it."""
    if not data:
        return
    portion, stream = data[0] % 16 + 1, data[1:]
    slowly = _bodies(stream[at : at + portion] for at in range(0, len(stream), portion))
    assert slowly == _bodies([stream]), "the portions decide what a stream says"


def _bodies(portions: Iterable[bytes]) -> tuple[list[bytes], bool]:
    """All whole frames, and whether the stream ended at one that is refused."""
    buffer = FrameBuffer()
    found: list[bytes] = []
    for portion in portions:
        buffer.feed(portion)
        try:
            while (body := buffer.pop(FRAME_LIMIT)) is not None:
                found.append(body)
        except ValueError:
            return found, True
    return found, False


# --- messages -------------------------------------------------------------------------------------


def messages(data: bytes) -> None:
    """What is read can be written and read again; a commitment can be planned, or is refused."""
    try:
        message = parse_from_rank(data)
    except MalformedError:
        return
    assert parse_from_rank(msgspec.json.encode(message)) == message
    if isinstance(message, Commitment):
        for world in (1, 2):
            try:
                plan = plan_opening([message] * world, LAYOUT)
            except SubmissionError as error:
                assert error.code is Code.STATE_INVALID
                assert error.message.isprintable()
            else:
                assert sum(len(order) for order in plan.orders)


def _said() -> list[Message]:
    whole = [
        Piece(
            name=name,
            tensor_shape=spec.shape,
            offset=(0,) * len(spec.shape),
            shape=spec.shape,
            dtype=spec.dtype,
            digest="0" * 64,
        )
        for name, spec in LAYOUT.items()
    ]
    return [
        Hello(protocol=2, rank=0, world_size=2, torch="2", transformers="5", device="cpu"),
        Progress(stage=Stage.SETUP),
        Ready(run=0),
        Done(run=0, final_loss=7.5, total_tokens=4096),
        Done(run=1, final_loss="nan", total_tokens=None),
        Commitment(run=0, pieces=tuple(whole)),
        Opened(run=0, peak_memory_bytes=2**33),
        Failed(stage=Stage.TRAINING, message="RuntimeError", detail="a\nb"),
    ]


def _message_seeds() -> list[bytes]:
    return [msgspec.json.encode(message) for message in _said()]


def _frame_seeds() -> list[bytes]:
    whole = [frame(message) for message in _said()]
    return [b"\x02" + b"".join(whole), *(b"\x07" + each for each in whole)]


# --- safetensors ----------------------------------------------------------------------------------


def shards(data: bytes) -> None:
    """Only a ShardError; and what is read covers the data, each byte once."""
    path = _file("shard", data)
    try:
        entries = read_shard(path, MOST_BYTES)
    except ShardError as error:
        assert str(error).isprintable()
        return
    (length,) = struct.unpack("<Q", data[:8])
    assert sum(entry.data.size for entry in entries) == len(data) - 8 - length


def _shard(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _shard_seeds() -> list[bytes]:
    two = {
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [8, 16]},
    }
    places = {name: {"saved_offsets": [0] * len(it["shape"])} for name, it in two.items()}
    boxes = {"__metadata__": {"DCP_SHARDING_INFO": json.dumps(places)}} | two
    return [_shard({}, b""), _shard(two, bytes(16)), _shard(boxes, bytes(16))]


# --- train files ----------------------------------------------------------------------------------


def strategies(data: bytes) -> None:
    """A source whose `get_strategy` returns this; the facts travel as JSON, as from the child."""
    source = b"def get_strategy():\n return " + data + b"\ndef inner_steps(*a, **b): pass\n"
    _examine(source)


def sources(data: bytes) -> None:
    """Any source."""
    _examine(data)


def _examine(source: bytes) -> None:
    facts = facts_of(json.loads(json.dumps(asdict(source_facts.collect(source)))))
    try:
        strategy = strategy_of(facts).check_world(WORLD)
    except SubmissionError as error:
        assert error.message.isprintable(), error.message
    else:
        assert all(0 <= strategy.dp_rank(rank) < strategy.dp_size for rank in range(WORLD))


def _strategy_seeds() -> list[bytes]:
    return [
        b'{"dp_size": 2}',
        b'{"dp_size": 1, "tp_size": 2, "ep_size": 4, "pp_size": 1, "cp_size": 1}',
        b'{"dp_size": -1, "ep_size": True}',
        b'"ddp"',
        b"{**{}, 'dp_size': 10**10}",
    ]


def _source_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "submissions").glob("train_*.py"))][:8]


# --- hparams --------------------------------------------------------------------------------------


def benchmarks(data: bytes) -> None:
    """An InputError with a line for each problem; or what can be written and read again."""
    path = _file("hparams.json", data)
    try:
        loaded = hparams.load(path)
    except InputError as error:
        assert error.code is Code.HPARAMS_INVALID
        assert error.message.replace("\n", "").isprintable(), error.message
        return
    written = loaded.hparams.model_dump_json().encode()
    assert hparams.load(_file("hparams.json", written)).hparams == loaded.hparams
    assert len(loaded.hparams.noise_sha256()) == 64


def _hparams_seeds() -> list[bytes]:
    files = [ROOT / "hparams.json", *sorted((ROOT / "profiles").glob("*.json"))]
    return [json.dumps(json.loads(path.read_bytes())).encode() for path in files]


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="trainjudge-fuzz-")


def _file(name: str, data: bytes) -> Path:
    """Below TMPDIR, which lies in memory where a target is fed thousands of times a second."""
    path = Path(_folder().name, name)
    path.write_bytes(data)
    return path


TARGETS: Final = {
    "frames": Target(frames, _frame_seeds),
    "messages": Target(
        messages,
        _message_seeds,
        ("type", "run", "pieces", "tensor_shape", "digest", "inf", "-inf", *Stage),
    ),
    "shards": Target(
        shards, _shard_seeds, ("data_offsets", "shape", "dtype", "saved_offsets", *DTYPES)
    ),
    "strategies": Target(strategies, _strategy_seeds, ("dp_size", "tp_size", "ep_size", "lambda")),
    "sources": Target(sources, _source_seeds, ("get_strategy", "inner_steps", "setup", "import *")),
    "hparams": Target(benchmarks, _hparams_seeds, ("NaN", "Infinity", "1e999", "\\u0000")),
}
