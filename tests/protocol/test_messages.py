"""What may be said on a rank's socket: every field at its limit, and one step beyond.

The limits stand here as numbers, once more: whoever changes one changes what a hostile rank can send.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.protocol import messages, profile
from harness.protocol.messages import (
    Commitment,
    Done,
    Failed,
    MalformedError,
    Message,
    Open,
    Piece,
    Progress,
    Ready,
    Stage,
    commitment_bytes,
    parse_from_judge,
    parse_from_rank,
    written,
)
from tests.project import ROOT

Fields = dict[str, Any]

PIECE: Fields = {
    "name": "layer.weight",
    "tensor_shape": [4, 6],
    "offset": [2, 0],
    "shape": [2, 6],
    "dtype": "float32",
    "digest": "0123456789abcdef" * 4,
}
FROM_RANK: dict[str, Fields] = {
    "hello": {
        "protocol": 1,
        "rank": 1,
        "world_size": 2,
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "device": "cpu",
    },
    "loaded": {},
    "progress": {"stage": "setup"},
    "ready": {"run": 0},
    "done": {"run": 0, "final_loss": 1.5, "total_tokens": 2048},
    "commitment": {"run": 0, "pieces": [PIECE]},
    "opened": {"run": 0, "peak_memory_bytes": 1_000},
    "failed": {"stage": "training", "message": "ValueError: no", "detail": "line 7"},
}
FROM_JUDGE: dict[str, Fields] = {
    "assignment": {
        "param_dtype": "float32",
        "placement": "device",
        "dp_size": 2,
        "sequence_length": 256,
        "global_batch": 8,
        "vocab_size": 2048,
        "warmup_steps": 2,
    },
    "import": {"file": "train.py"},
    "go": {"run": 0, "steps": 8, "challenge": "run0.safetensors"},
    "key": {"run": 0, "key": "0123456789abcdef" * 4},
    "open": {"run": 0, "pieces": [0, 3]},
    "again": {"run": 1},
    "bye": {},
}


def parse(kind: str, fields: Fields) -> Message:
    """As the one who gets this kind of message reads it off the wire."""
    body = json.dumps({"type": kind, **fields}).encode()
    return parse_from_rank(body) if kind in FROM_RANK else parse_from_judge(body)


def valid(kind: str) -> Fields:
    return {**FROM_RANK, **FROM_JUDGE}[kind]


def with_piece(change: Fields) -> Fields:
    return {"pieces": [{**PIECE, **change}]}


def refused(kind: str, change: Fields) -> str:
    with pytest.raises(MalformedError) as caught:
        parse(kind, {**valid(kind), **change})
    return str(caught.value)


def sent(message: object) -> bytes:
    return msgspec.json.encode(message)


def plain(message: object) -> object:
    """As JSON has it."""
    return json.loads(sent(message))


@pytest.mark.parametrize("kind", [*FROM_RANK, *FROM_JUDGE])
def test_a_message_says_what_was_put_into_it(kind: str) -> None:
    message = parse(kind, valid(kind))
    assert plain(message) == {"type": kind, **valid(kind)}


RANGES = [
    ("hello", "rank", 0, 65_535),
    ("hello", "world_size", 1, 65_536),
    ("ready", "run", 0, 999),
    ("done", "run", 0, 999),
    ("done", "total_tokens", -(2**63), 2**63 - 1),
    ("commitment", "run", 0, 999),
    ("opened", "run", 0, 999),
    ("opened", "peak_memory_bytes", 0, 2**63 - 1),
    ("go", "run", 0, 999),
    ("key", "run", 0, 999),
    ("open", "run", 0, 999),
    ("again", "run", 0, 999),
]


@pytest.mark.parametrize(("kind", "field", "least", "most"), RANGES)
def test_a_number_at_its_limit_passes_and_one_more_does_not(
    kind: str, field: str, least: int, most: int
) -> None:
    for number in (least, most):
        assert getattr(parse(kind, {**valid(kind), field: number}), field) == number
    for number in (least - 1, most + 1):
        assert refused(kind, {field: number}).endswith(f"`$.{field}`")


LENGTHS = [
    ("hello", "torch", 0, 64),
    ("hello", "transformers", 0, 64),
    ("hello", "device", 0, 128),
    ("failed", "message", 0, 2_000),
    ("failed", "detail", 0, 8_000),
    ("import", "file", 1, 256),
    ("go", "challenge", 1, 256),
]


@pytest.mark.parametrize(("kind", "field", "least", "most"), LENGTHS)
def test_a_text_at_its_limit_passes_and_one_character_more_does_not(
    kind: str, field: str, least: int, most: int
) -> None:
    for length in (least, most):
        assert getattr(parse(kind, {**valid(kind), field: "é" * length}), field) == "é" * length
    refused(kind, {field: "x" * (most + 1)})
    if least:
        refused(kind, {field: ""})


PIECES_INSIDE: list[Fields] = [
    {"name": "x"},
    {"name": "x" * 256},
    {"dtype": ""},
    {"dtype": "x" * 32},
    {"tensor_shape": [], "offset": [], "shape": []},
    {"tensor_shape": [1] * 8, "offset": [0] * 8, "shape": [1] * 8},
    {"tensor_shape": [2**48 - 1], "offset": [2**48 - 1], "shape": [2**48 - 1]},
    {"tensor_shape": [0], "offset": [0], "shape": [0]},
]
PIECES_OUTSIDE: list[Fields] = [
    {"name": ""},
    {"name": "x" * 257},
    {"dtype": "x" * 33},
    *({field: [1] * 9} for field in ("tensor_shape", "offset", "shape")),
    *({field: [2**48]} for field in ("tensor_shape", "offset", "shape")),
    *({field: [-1]} for field in ("tensor_shape", "offset", "shape")),
    {"digest": ""},
    {"digest": "0" * 63},
    {"digest": "0" * 65},
    {"digest": "0" * 63 + "F"},
    {"digest": "0" * 63 + "g"},
    {"digest": "0" * 64 + "\n"},
    {"digest": " "},
]


@pytest.mark.parametrize("change", PIECES_INSIDE, ids=str)
def test_a_piece_at_a_limit_is_read(change: Fields) -> None:
    message = parse("commitment", {"run": 0, **with_piece(change)})
    assert isinstance(message, Commitment)
    assert plain(message.pieces[0]) == {**PIECE, **change}


@pytest.mark.parametrize("change", PIECES_OUTSIDE, ids=str)
def test_a_piece_beyond_a_limit_is_refused(change: Fields) -> None:
    refused("commitment", with_piece(change))


@pytest.mark.parametrize("key", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "g" * 64])
def test_a_key_is_64_hex_digits(key: str) -> None:
    refused("key", {"key": key})


@pytest.mark.parametrize(
    ("kind", "item"),
    [("commitment", PIECE), ("open", 70_000)],
)
def test_a_list_has_at_most_65536_pieces(kind: str, item: object) -> None:
    full = parse(kind, {"run": 0, "pieces": [item] * 65_536})
    assert isinstance(full, Commitment | Open) and len(full.pieces) == 65_536
    assert "length <= 65536" in refused(kind, {"pieces": [item] * 65_537})


def test_reading_stops_at_the_first_mistake() -> None:
    assert refused("commitment", {"pieces": [None] * 10_000}).count("Expected") == 1


#: Each is as long as the longest commitment may be.
NONSENSE = {
    "negative sizes": b'"tensor_shape":[' + b"-1," * (16 * 2**20) + b"-1]",
    "zeros": b'"tensor_shape":[' + b"0," * (24 * 2**20) + b"0]",
    "unknown keys": b",".join(b'"k%d":1' % number for number in range(4 * 2**20)),
    "one long number": b'"tensor_shape":[' + b"9" * (48 * 2**20) + b"]",
    "one long text": b'"dtype":"' + b"x" * (48 * 2**20) + b'"',
    "deep": b'"tensor_shape":' + b"[" * (24 * 2**20) + b"]" * (24 * 2**20),
}
READ_ONE = """
import resource, sys, time
from harness.protocol.messages import MalformedError, parse_from_rank
body = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
try:
    parse_from_rank(body)
except MalformedError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((peak - before) // 1024, time.monotonic() - began)
"""


@pytest.mark.parametrize("where", ["commitment", "piece", "run", "before the type"])
@pytest.mark.parametrize("what", NONSENSE)
def test_no_message_costs_the_judge_much_more_than_its_bytes(
    what: str, where: str, tmp_path: Path
) -> None:
    """One of 48 MiB built 16.7 million error objects once: 8.5 GiB, and no verdict."""
    nonsense = NONSENSE[what]
    value = nonsense.partition(b":")[2]
    body = {
        "commitment": b'{"type":"commitment","run":0,' + nonsense + b"}",
        "piece": b'{"type":"commitment","run":0,"pieces":[{"name":"a",' + nonsense + b"}]}",
        "run": b'{"type":"commitment","run":' + value + b"}",
        "before the type": b"{" + nonsense + b',"type":"commitment","run":0}',
    }[where]
    path = tmp_path / "body"
    path.write_bytes(body)
    command = [sys.executable, "-c", READ_ONE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout, done.stderr[-2_000:]
    mebibytes, seconds = done.stdout.split()
    assert int(mebibytes) < 600 and float(seconds) < 5


@pytest.mark.parametrize(
    "stage", ["loading", "import", "setup", "warmup", "training", "result", "opening"]
)
def test_a_rank_can_say_where_it_is_and_where_it_failed(stage: str) -> None:
    assert parse("progress", {"stage": stage}) == Progress(stage=Stage(stage))
    failed = parse("failed", {"stage": stage, "message": "m"})
    assert failed == Failed(stage=Stage(stage), message="m", detail="")


CHOICES = [
    ("progress", "stage", "breakfast"),
    ("failed", "stage", "Training"),
    ("assignment", "param_dtype", "float16"),
    ("assignment", "placement", "disk"),
]


@pytest.mark.parametrize(("kind", "field", "value"), CHOICES)
def test_a_word_that_is_none_of_the_choices_is_refused(kind: str, field: str, value: str) -> None:
    refused(kind, {field: value})


@pytest.mark.parametrize(("field", "value"), [("param_dtype", "bfloat16"), ("placement", "cpu")])
def test_the_other_choice_passes(field: str, value: str) -> None:
    message = parse("assignment", {**valid("assignment"), field: value})
    assert getattr(message, field) == value


# --- nothing but what is asked ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FROM_RANK, *FROM_JUDGE])
def test_an_unknown_field_is_refused(kind: str) -> None:
    assert "unknown field `more`" in refused(kind, {"more": 1})


def test_an_unknown_field_of_a_piece_is_refused() -> None:
    refused("commitment", with_piece({"more": 1}))


#: The fields that need not be there.
OPTIONAL = {("failed", "detail")}
REQUIRED = [
    (kind, field)
    for kind, fields in {**FROM_RANK, **FROM_JUDGE}.items()
    for field in fields
    if (kind, field) not in OPTIONAL
]


@pytest.mark.parametrize(("kind", "field"), REQUIRED)
def test_a_field_that_is_missing_is_refused(kind: str, field: str) -> None:
    left = {name: value for name, value in valid(kind).items() if name != field}
    with pytest.raises(MalformedError):
        parse(kind, left)


COERCIONS: list[tuple[str, str, object]] = [
    ("ready", "run", "0"),
    ("ready", "run", 0.5),
    ("ready", "run", True),
    ("ready", "run", None),
    ("hello", "protocol", "1"),
    ("hello", "device", 3),
    ("done", "final_loss", "1.5"),
    ("done", "total_tokens", 2048.5),
    ("failed", "detail", None),
    ("assignment", "dp_size", "2"),
    ("open", "pieces", ["0"]),
    ("open", "pieces", {"0": 0}),
]


@pytest.mark.parametrize(("kind", "field", "value"), COERCIONS)
def test_a_value_of_another_type_is_not_bent_into_shape(
    kind: str, field: str, value: object
) -> None:
    refused(kind, {field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("final_loss", None), ("total_tokens", None), ("total_tokens", -5)]
)
def test_a_rank_may_have_no_loss_and_claim_any_count(field: str, value: object) -> None:
    """A pipeline stage has no loss; what is claimed is compared later, here only its form counts."""
    message = parse("done", {**valid("done"), field: value})
    assert getattr(message, field) == value


@pytest.mark.parametrize("loss", [math.inf, -math.inf, 0.0, -1.5, 1e300, None])
def test_a_loss_arrives_as_what_it_is(loss: float | None) -> None:
    done = Done(run=0, final_loss=written(loss), total_tokens=1)
    read = parse_from_rank(sent(done))
    assert isinstance(read, Done) and read.loss == loss


def test_a_loss_that_is_no_number_arrives_as_what_it_is() -> None:
    read = parse_from_rank(sent(Done(run=0, final_loss=written(math.nan), total_tokens=1)))
    assert isinstance(read, Done)
    assert read.loss is not None and math.isnan(read.loss)


def test_a_message_cannot_be_changed_after_it_was_checked() -> None:
    message = Ready(run=0)
    with pytest.raises(AttributeError, match="immutable"):
        message.run = 1000  # type: ignore[misc]


# --- who says what ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FROM_JUDGE)
def test_a_rank_cannot_say_what_only_the_judge_says(kind: str) -> None:
    with pytest.raises(MalformedError, match="Invalid value"):
        parse_from_rank(json.dumps({"type": kind, **valid(kind)}).encode())


@pytest.mark.parametrize("kind", FROM_RANK)
def test_the_judge_does_not_say_what_only_ranks_say(kind: str) -> None:
    with pytest.raises(MalformedError, match="Invalid value"):
        parse_from_judge(json.dumps({"type": kind, **valid(kind)}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"ready"',
        b"{}",
        b'{"run":0}',
        b'{"type":"ready","run":0}{}',
        b'{"type":["ready"],"run":0}',
        b'\xff{"type":"ready","run":0}',
        b'{"type":"hello","torch":"\xff"}',
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    for read in (parse_from_rank, parse_from_judge):
        with pytest.raises(MalformedError):
            read(body)


# --- room -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FROM_RANK, *FROM_JUDGE])
def test_how_many_bytes_a_message_may_have(kind: str) -> None:
    larger = {"commitment": 50_331_648, "open": 1_048_576}
    assert parse(kind, valid(kind)).max_bytes == larger.get(kind, 65_536)


@pytest.mark.parametrize("character", ["x", "é", "\x1b", "\U0001f600", '"'])
def test_the_longest_failure_that_may_be_reported_fits_whatever_its_characters(
    character: str,
) -> None:
    longest = Failed(stage=Stage.TRAINING, message=character * 2_000, detail=character * 8_000)
    assert len(sent(longest)) <= longest.max_bytes


def test_every_piece_of_the_longest_commitment_can_be_asked_for() -> None:
    every = Open(run=999, pieces=tuple(range(65_536)))
    assert len(sent(every)) <= every.max_bytes


def test_a_commitment_of_as_many_pieces_as_allowed_fits_with_names_as_long_as_models_have() -> None:
    piece = msgspec.convert({**PIECE, "name": "x" * 128}, Piece)
    longest = Commitment(run=999, pieces=(piece,) * 65_536)
    assert len(sent(longest)) <= longest.max_bytes


LONGEST_PIECE: Fields = {
    "name": "é" * 256,
    **{field: [2**48 - 1] * 8 for field in ("tensor_shape", "offset", "shape")},
    "dtype": "float8_e4m3fnuz",
    "digest": "f" * 64,
}


def test_a_model_s_commitment_has_room_for_every_row_of_every_tensor_apart() -> None:
    """And beside them for what is cut out of a flat range, whatever the numbers."""
    name = str(LONGEST_PIECE["name"])
    shapes = {name: (2_048, 64), "scale": (), "bias": (7,)}
    pieces = tuple(msgspec.convert(LONGEST_PIECE, Piece) for _ in range(2_048 + 64 + 64 + 7 + 64))
    longest = Commitment(run=999, pieces=pieces)
    assert len(sent(longest)) <= commitment_bytes(shapes) < 2 * len(sent(longest))


@pytest.mark.parametrize(
    ("shapes", "limit"),
    [
        ({}, 65_536),
        ({"w": (3, 4)}, 65_536),
        ({"w": (1_000, 4)}, (1_000 + 64) * (640 + 3)),
        ({"w": (1_000, 4), "x" * 100: ()}, (1_000 + 2 * 64) * (640 + 102)),
        ({"w": (65_536 - 64,)}, 65_536 * (640 + 3)),
        ({"w": (10**9,)}, 65_536 * (640 + 3)),
        ({"x" * 256: (10**9,)}, 50_331_648),
    ],
)
def test_a_commitment_may_be_as_long_as_a_state_of_its_model_needs(
    shapes: dict[str, tuple[int, ...]], limit: int
) -> None:
    assert commitment_bytes(shapes) == limit


def test_images_of_today_speak_version_3() -> None:
    """Worker and judge compare the number: one that changes without need makes all images useless."""
    assert messages.PROTOCOL_VERSION == 3


def test_what_nests_deeper_than_python_recurses_is_malformed() -> None:
    """No message has a place for it now: this is for one that will."""
    anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
    with pytest.raises(MalformedError, match="nested too deeply"):
        messages._parse(anything, b"[" * 100_000)


def kinds_of(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds_of(kind)


def test_nothing_that_was_said_can_be_changed_afterwards() -> None:
    kinds = list(kinds_of(messages.Strict))
    assert {Piece, Done, Commitment, Open, profile.RankProfile} < set(kinds)
    assert [kind for kind in kinds if not kind.__struct_config__.frozen] == []
