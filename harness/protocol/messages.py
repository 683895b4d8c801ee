"""The messages between the judge and one rank. `docs/protocol.md` tells the story in order.

Every field is bounded: the judge validates what it receives with these models and believes nothing
beyond their form. A rank's messages are claims to be checked, never facts.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import isfinite
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta

PROTOCOL_VERSION = 3

MAX_PIECES = 65_536
MAX_DIMS = 8
#: Of a piece in JSON, beside its name: three lists of MAX_DIMS numbers, the digest, the words.
PIECE_BYTES = 640
#: Pieces of one tensor that a rank may commit to beside one for each of its first dimension: what is cut
#: out of a flat range takes two for each dimension.
SPARE_PIECES = 64

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=2_000)]
LongText = Annotated[str, Meta(max_length=8_000)]
Hex256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Size = Annotated[int, Meta(ge=0, lt=2**48)]
Dims = Annotated[tuple[Size, ...], Meta(max_length=MAX_DIMS)]
RunIndex = Annotated[int, Meta(ge=0, lt=1_000)]
#: JSON has no other way to say it.
NonFinite = Literal["nan", "inf", "-inf"]


class Stage(StrEnum):
    """Where a rank is. Up to LOADING no line of the submission has run, so a failure is ours."""

    LOADING = "loading"
    IMPORT = "import"
    SETUP = "setup"
    WARMUP = "warmup"
    TRAINING = "training"
    RESULT = "result"
    OPENING = "opening"


class MalformedError(ValueError):
    """What was sent is no message; the text says why, and may quote the sender."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable, nothing unknown, no coercion. Reading stops at the first mistake, whatever follows it."""


class Message(Strict, frozen=True, tag=str.lower):
    """Base of all that is sent; "type" in JSON is the class's name."""

    max_bytes: ClassVar[int] = 64 * 1024


class Piece(Strict, frozen=True):
    """A box of one tensor of the final state that this rank holds.

    Attributes:
        name: canonical parameter name, wrapper prefixes stripped.
        tensor_shape: shape of the whole tensor.
        offset: where the box begins in the whole tensor, one number per dimension.
        shape: shape of the box.
        dtype: torch's name of the dtype without the prefix, such as "float32".
        digest: keyed BLAKE3 of the bytes of all its elements (`protocol.digest`), hex.
    """

    name: Name
    tensor_shape: Dims
    offset: Dims
    shape: Dims
    dtype: Annotated[str, Meta(max_length=32)]
    digest: Hex256


# --- from a rank to the judge -----------------------------------------------------------------


class Hello(Message, frozen=True):
    """First words on a rank's socket."""

    protocol: int
    rank: Annotated[int, Meta(ge=0, lt=65_536)]
    world_size: Annotated[int, Meta(ge=1, le=65_536)]
    torch: Annotated[str, Meta(max_length=64)]
    transformers: Annotated[str, Meta(max_length=64)]
    device: Annotated[str, Meta(max_length=128)]


class Loaded(Message, frozen=True):
    """Model built and process group up; nothing of the submission has been read yet."""


class Progress(Message, frozen=True):
    """Off the clock only: which stage begins. Shown to the person who waits, used for nothing."""

    stage: Stage


class Ready(Message, frozen=True):
    """Set up and waiting for the challenge of run `run`."""

    run: RunIndex


class Done(Message, frozen=True):
    """`inner_steps` returned. `final_loss` is as `written` has it; read it as `loss`."""

    run: RunIndex
    final_loss: float | NonFinite | None
    total_tokens: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None

    @property
    def loss(self) -> float | None:
        """Nats per token, as this rank claims; NaN and infinities as themselves."""
        return None if self.final_loss is None else float(self.final_loss)


def written(loss: float | None) -> float | NonFinite | None:
    """A loss as it is sent."""
    if loss is None or isfinite(loss):
        return loss
    return "nan" if loss != loss else "inf" if loss > 0 else "-inf"


class Commitment(Message, frozen=True):
    """Digests of everything that this rank holds of the final state. Stops the clock."""

    max_bytes: ClassVar[int] = 48 * 1024 * 1024
    run: RunIndex
    pieces: Annotated[tuple[Piece, ...], Meta(max_length=MAX_PIECES)]


def commitment_bytes(shapes: Mapping[str, Sequence[int]]) -> int:
    """How long a rank's commitment to a state of these tensors may be.

    Args:
        shapes: of all tensors, by name.
    """
    pieces = sum(SPARE_PIECES + (shape[0] if shape else 0) for shape in shapes.values())
    longest = max((len(msgspec.json.encode(name)) for name in shapes), default=0)
    needed = min(pieces, MAX_PIECES) * (PIECE_BYTES + longest)
    return min(max(needed, Message.max_bytes), Commitment.max_bytes)


class Opened(Message, frozen=True):
    """The pieces that the judge asked for lie in this rank's folder of the outbox."""

    peak_memory_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    run: RunIndex


class Failed(Message, frozen=True):
    """This rank cannot go on. `stage` is a hint for the author, never a claim that we accept."""

    stage: Stage
    message: Text
    detail: LongText = ""


FromRank = Hello | Loaded | Progress | Ready | Done | Commitment | Opened | Failed


# --- from the judge to a rank -----------------------------------------------------------------


class Assignment(Message, frozen=True):
    """What a rank needs to know before the submission is read. Where things lie is in its environment
    (`env.places`), since machines differ in that.

    Attributes:
        param_dtype: dtype of the parameters handed to the submission.
        placement: "device": the model is handed over on the rank's device; "cpu": memory-mapped.
        dp_size: data-parallel ranks; rows are dealt by `rank // (world_size // dp_size)`.
        sequence_length: tokens in a row.
        global_batch: rows of one step over all dp ranks.
        vocab_size: warm-up draws its random tokens below this.
        warmup_steps: steps of the warm-up call; 0 skips it.
    """

    param_dtype: Literal["float32", "bfloat16"]
    placement: Literal["device", "cpu"]
    dp_size: int
    sequence_length: int
    global_batch: int
    vocab_size: int
    warmup_steps: int


class Import(Message, frozen=True):
    """The train file lies in the inbox: import it, set up, warm up, say READY."""

    file: Name


class Go(Message, frozen=True):
    """The clock runs. The challenge file holds `tokens`, int32 [steps, global_batch, sequence]."""

    run: RunIndex
    steps: int
    challenge: Name


class Key(Message, frozen=True):
    """All ranks are DONE: commit with this key, drawn just now."""

    run: RunIndex
    key: Hex256


class Open(Message, frozen=True):
    """The clock has stopped. Write the pieces with these indices of your commitment."""

    max_bytes: ClassVar[int] = 1024 * 1024
    run: RunIndex
    pieces: Annotated[tuple[int, ...], Meta(max_length=MAX_PIECES)]


class Again(Message, frozen=True):
    """Reload the initial weights, set up again, and say READY for run `run`."""

    run: RunIndex


class Bye(Message, frozen=True):
    """Nothing more to do; the sandbox ends now."""


FromJudge = Assignment | Import | Go | Key | Open | Again | Bye

_FROM_RANK: msgspec.json.Decoder[FromRank] = msgspec.json.Decoder(FromRank)
_FROM_JUDGE: msgspec.json.Decoder[FromJudge] = msgspec.json.Decoder(FromJudge)

Found = TypeVar("Found")


def parse_from_rank(body: bytes) -> FromRank:
    """Validate one frame's body from a rank. Raises MalformedError."""
    return _parse(_FROM_RANK, body)


def parse_from_judge(body: bytes) -> FromJudge:
    """Validate one frame's body from the judge. Raises MalformedError."""
    return _parse(_FROM_JUDGE, body)


def _parse(decoder: "msgspec.json.Decoder[Found]", body: bytes) -> Found:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(str(error)) from None
    except RecursionError:
        raise MalformedError("nested too deeply") from None
