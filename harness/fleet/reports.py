"""What travels between dispatcher and node. Both are ours: a train file is in it as bytes alone.

A result travels as the document that it is, and is checked against its form where it arrives.
"""

from dataclasses import dataclass

from harness.board.judging import Asked


@dataclass(frozen=True)
class Order:
    """What a node is to judge.

    Attributes:
        benchmark: hash of the hparams file; the node knows where its own copy lies.
        asked: the file.
    """

    benchmark: str
    asked: Asked


@dataclass(frozen=True)
class Said:
    """The end of what the judge has printed; also without news, so that silence means something."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The judge has ended; the fields are those of `Judged`, with the result as JSON."""

    document: bytes | None
    status: int | None
    last_line: str


@dataclass(frozen=True)
class Unable:
    """No judge can be run on this node, nor the next one."""

    cause: str


@dataclass(frozen=True)
class Lost:
    """Nothing more comes: the node, or Ray's process on it, is gone. Made where it is noticed."""

    cause: str


Report = Said | Ended | Unable | Lost
