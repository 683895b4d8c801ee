"""What the judge and an agent say to each other; `docs/multi-node.md` tells it in order.

Both are ours, and have shown each other the key. What ranks say passes through as bytes that nobody here
reads: the judge's session does, as if the rank were beside it.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from harness.machine import Device
from harness.protocol.messages import Hex256, RunIndex, Strict
from harness.score.peaks import Source

#: Of the words below; both sides have to have the same.
VERSION: Final = 1
#: A file and what a rank says go in portions.
PORTION: Final = 1 << 20
MOST_BYTES: Final = PORTION + (1 << 16)
MOST_NODES: Final = 64

Rank = Annotated[int, Meta(ge=0, lt=65_536)]
Line = Annotated[str, Meta(max_length=500)]
FileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")]
Portion = Annotated[bytes, Meta(max_length=PORTION)]


class Word(Strict, frozen=True, tag=str.lower):
    """Base of all of them."""


# --- from the judge ---------------------------------------------------------------------------


class Prepare(Word, frozen=True):
    """The first word: what is to be judged. Answered by `Prepared`, and the machine is the judge's.

    Attributes:
        index: of this machine among all.
        ranks: on this machine; those before are on the machines before.
    """

    version: int
    hparams_sha256: Hex256
    model_sha256: Hex256
    data_sha256: Hex256
    index: Annotated[int, Meta(ge=0, lt=MOST_NODES)]
    ranks: Annotated[int, Meta(ge=1, le=1_024)]


class Measure(Word, frozen=True):
    """Measure the peak of a device. Answered by `Measured`."""


class Start(Word, frozen=True):
    """Start the sandbox. Answered by `Begun`.

    Attributes:
        number: of the network between the sandboxes.
        machines: the fabric's address of each machine, in order.
        addresses: of each machine's sandbox in that network, in order.
    """

    number: Annotated[int, Meta(ge=1, lt=2**24)]
    machines: Annotated[tuple[str, ...], Meta(max_length=MOST_NODES)]
    addresses: Annotated[tuple[str, ...], Meta(max_length=MOST_NODES)]


class ToRank(Word, frozen=True):
    """What the judge says to a rank."""

    rank: Rank
    data: Portion


class Put(Word, frozen=True):
    """A portion of a file; answered by `Kept` when the last one has been written.

    Attributes:
        held: beside the sandbox, where it cannot look; otherwise in the inbox.
    """

    name: FileName
    data: Portion
    held: bool
    last: bool


class Release(Word, frozen=True):
    """Let a held file into the inbox, now. Answered by `Released`."""

    name: FileName


class Ping(Word, frozen=True):
    """Answered by `Pong` at once."""

    number: int


class Stop(Word, frozen=True):
    """End the sandbox. `Ended` follows, unless it has been said."""


class Collect(Word, frozen=True):
    """Send what lies in the outbox; the sandbox has ended. Answered by files, then `Collected` or `Odd`."""


# --- from an agent ----------------------------------------------------------------------------


class Prepared(Word, frozen=True):
    """Ready, and this machine is kept from others.

    Attributes:
        machine: `harness.machine.Machine` as JSON.
        level: of isolation.
        fabric: its IPv4 address on the network between the machines.
        warnings: what a reader of the result has to know of this machine.
    """

    machine: Annotated[str, Meta(max_length=20_000)]
    device: Device
    level: Line
    fabric: Line
    warnings: Annotated[tuple[Line, ...], Meta(max_length=4)]


class Refused(Word, frozen=True):
    """What was asked for cannot be done here; or, where nothing was asked, the agent leaves.

    Attributes:
        code: of `harness.errors.Code`.
    """

    code: Line
    message: Annotated[str, Meta(max_length=4_000)]


class Measured(Word, frozen=True):
    """The peak of one device, in TFLOP/s; where it is measured, the largest that the machine has shown.

    Attributes:
        doubts: what a reader has to know of it.
    """

    tflops: float
    source: Source
    device: Line
    doubts: Annotated[tuple[Line, ...], Meta(max_length=4)]


class Begun(Word, frozen=True):
    """The sandbox has been started."""


class Joined(Word, frozen=True):
    """A rank has connected."""

    rank: Rank


class FromRank(Word, frozen=True):
    """What a rank says, and when it had arrived, in nanoseconds of this machine's clock."""

    rank: Rank
    data: Portion
    at: int


class Left(Word, frozen=True):
    """A rank has hung up."""

    rank: Rank


class Kept(Word, frozen=True):
    """The file has been written."""

    name: FileName


class Released(Word, frozen=True):
    """It lay in the inbox then, in nanoseconds of this machine's clock."""

    name: FileName
    at: int


class Pong(Word, frozen=True):
    """This machine's clock, in nanoseconds, when the ping had arrived."""

    number: int
    at: int


class Ended(Word, frozen=True):
    """The sandbox has ended, and nothing of it is left; or that cannot be shown.

    Attributes:
        reason: of `harness.sandbox.EndReason`; empty where ending it failed.
        left: something of it may be left.
        others: what other programs had of the cores, 0 to 1.
        room: bytes that the outbox's disk had for it; None: not known.
    """

    reason: Line
    exit_status: int | None
    detail: Annotated[str, Meta(max_length=4_000)]
    left: bool
    others: float
    room: int | None
    log: str


class Folder(Word, frozen=True):
    """A rank's folder of the outbox."""

    run: RunIndex
    rank: Rank


class Piece(Word, frozen=True):
    """A portion of a file in that folder."""

    run: RunIndex
    rank: Rank
    name: FileName
    data: Portion


class Odd(Word, frozen=True):
    """Something lies in the outbox that has no place there; in words."""

    what: Annotated[str, Meta(max_length=4_000)]


class Collected(Word, frozen=True):
    """That was all."""


FromJudge = Prepare | Measure | Start | ToRank | Put | Release | Ping | Stop | Collect
FromAgent = (
    Prepared | Refused | Measured | Begun | Joined | FromRank | Left | Kept | Released | Pong
    | Ended | Folder | Piece | Odd | Collected
)  # fmt: skip

FROM_JUDGE: Final[msgspec.msgpack.Decoder[FromJudge]] = msgspec.msgpack.Decoder(FromJudge)
FROM_AGENT: Final[msgspec.msgpack.Decoder[FromAgent]] = msgspec.msgpack.Decoder(FromAgent)
