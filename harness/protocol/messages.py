"""The messages between the judge and one rank. `docs/protocol.md` tells the story in order.

Every field is bounded: the judge validates what it receives with these models and believes nothing
beyond their form. A rank's messages are claims to be checked, never facts.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints, TypeAdapter

PROTOCOL_VERSION = 2

MAX_PIECES = 65_536
MAX_DIMS = 8

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Text = Annotated[str, StringConstraints(max_length=2_000)]
LongText = Annotated[str, StringConstraints(max_length=8_000)]
Hex256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, lt=2**48)]
Dims = Annotated[tuple[Size, ...], Field(max_length=MAX_DIMS)]
RunIndex = Annotated[int, Field(ge=0, lt=1_000)]


class Stage(StrEnum):
    """Where a rank is. Up to LOADING no line of the submission has run, so a failure is ours."""

    LOADING = "loading"
    IMPORT = "import"
    SETUP = "setup"
    WARMUP = "warmup"
    TRAINING = "training"
    RESULT = "result"
    OPENING = "opening"


class Message(BaseModel):
    """Base: immutable, nothing unknown, no coercion; NaN and infinity travel as themselves."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants"
    )
    max_bytes: ClassVar[int] = 64 * 1024


class Piece(Message):
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
    dtype: Annotated[str, StringConstraints(max_length=32)]
    digest: Hex256


# --- from a rank to the judge -----------------------------------------------------------------


class Hello(Message):
    """First words on a rank's socket."""

    type: Literal["hello"] = "hello"
    protocol: int
    rank: Annotated[int, Field(ge=0, lt=65_536)]
    world_size: Annotated[int, Field(ge=1, le=65_536)]
    torch: Annotated[str, StringConstraints(max_length=64)]
    transformers: Annotated[str, StringConstraints(max_length=64)]
    device: Annotated[str, StringConstraints(max_length=128)]


class Loaded(Message):
    """Model built and process group up; nothing of the submission has been read yet."""

    type: Literal["loaded"] = "loaded"


class Progress(Message):
    """Off the clock only: which stage begins. Shown to the person who waits, used for nothing."""

    type: Literal["progress"] = "progress"
    stage: Stage


class Ready(Message):
    """Set up and waiting for the challenge of run `run`."""

    type: Literal["ready"] = "ready"
    run: RunIndex


class Done(Message):
    """`inner_steps` returned."""

    type: Literal["done"] = "done"
    run: RunIndex
    final_loss: float | None
    total_tokens: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None


class Commitment(Message):
    """Digests of everything that this rank holds of the final state. Stops the clock."""

    type: Literal["commitment"] = "commitment"
    max_bytes: ClassVar[int] = 48 * 1024 * 1024
    run: RunIndex
    # FailFast: a long list of nonsense must not become as many errors.
    pieces: Annotated[tuple[Piece, ...], Field(max_length=MAX_PIECES), FailFast()]


class Opened(Message):
    """The pieces that the judge asked for lie in this rank's folder of the outbox."""

    type: Literal["opened"] = "opened"
    peak_memory_bytes: Annotated[int, Field(ge=0, lt=2**63)]
    run: RunIndex


class Failed(Message):
    """This rank cannot go on. `stage` is a hint for the author, never a claim that we accept."""

    type: Literal["failed"] = "failed"
    stage: Stage
    message: Text
    detail: LongText = ""


FromRank = Hello | Loaded | Progress | Ready | Done | Commitment | Opened | Failed


# --- from the judge to a rank -----------------------------------------------------------------


class Assignment(Message):
    """What a rank needs to know before the submission is read. Paths are as the sandbox sees them.

    Attributes:
        model_dir: the snapshot: config.json and the initial weights.
        inbox: where the judge puts the train file and the challenges.
        outbox: where this rank opens its state, a folder of its own.
        param_dtype: dtype of the parameters handed to the submission.
        placement: "device": the model is handed over on the rank's device; "cpu": memory-mapped.
        dp_size: data-parallel ranks; rows are dealt by `rank // (world_size // dp_size)`.
        sequence_length: tokens in a row.
        global_batch: rows of one step over all dp ranks.
        vocab_size: warm-up draws its random tokens below this.
        warmup_steps: steps of the warm-up call; 0 skips it.
    """

    type: Literal["assignment"] = "assignment"
    model_dir: Text
    inbox: Text
    outbox: Text
    param_dtype: Literal["float32", "bfloat16"]
    placement: Literal["device", "cpu"]
    dp_size: int
    sequence_length: int
    global_batch: int
    vocab_size: int
    warmup_steps: int


class Import(Message):
    """The train file lies in the inbox: import it, set up, warm up, say READY."""

    type: Literal["import"] = "import"
    file: Name


class Go(Message):
    """The clock runs. The challenge file holds `tokens`, int32 [steps, global_batch, sequence]."""

    type: Literal["go"] = "go"
    run: RunIndex
    steps: int
    challenge: Name


class Key(Message):
    """All ranks are DONE: commit with this key, drawn just now."""

    type: Literal["key"] = "key"
    run: RunIndex
    key: Hex256


class Open(Message):
    """The clock has stopped. Write the pieces with these indices of your commitment."""

    type: Literal["open"] = "open"
    max_bytes: ClassVar[int] = 1024 * 1024
    run: RunIndex
    pieces: Annotated[tuple[int, ...], Field(max_length=MAX_PIECES)]


class Again(Message):
    """Reload the initial weights, set up again, and say READY for run `run`."""

    type: Literal["again"] = "again"
    run: RunIndex


class Bye(Message):
    """Nothing more to do; the sandbox ends now."""

    type: Literal["bye"] = "bye"


FromJudge = Assignment | Import | Go | Key | Open | Again | Bye

_FROM_RANK: TypeAdapter[FromRank] = TypeAdapter(Annotated[FromRank, Field(discriminator="type")])
_FROM_JUDGE: TypeAdapter[FromJudge] = TypeAdapter(Annotated[FromJudge, Field(discriminator="type")])


def parse_from_rank(body: bytes) -> FromRank:
    """Validate one frame's body from a rank. Raises pydantic.ValidationError."""
    return _FROM_RANK.validate_json(body)


def parse_from_judge(body: bytes) -> FromJudge:
    """Validate one frame's body from the judge. Raises pydantic.ValidationError."""
    return _FROM_JUDGE.validate_json(body)
