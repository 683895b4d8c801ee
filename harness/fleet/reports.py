"""What travels between dispatcher and node. Both are ours: a train file is in it as bytes alone.

A result travels as the document that it is, and is checked against its form where it arrives.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from harness.board.judging import Asked
from harness.records import Record


@dataclass(frozen=True)
class Order:
    """What a node is to judge.

    Attributes:
        benchmark: hash of the hparams file; the node knows where its own copy lies.
        asked: the file.
    """

    benchmark: str
    asked: Asked


class Portion(Record):
    """A part of a long measurement, or of a bank, that one node makes."""

    what: Literal["calibrate", "power", "bank"]
    runs: int = Field(ge=1, description="challenges; of a bank: unused entries that are wanted")
    only: str = Field(default="", description="of a calibration: variants whose names contain this")
    families: tuple[str, ...] = Field(default=(), description="of cheats, as `validator power`'s")
    world_size: int | None = Field(default=None, description="of a bank; null: the benchmark's")
    limit_bytes: int = Field(default=0, description="of a bank")


@dataclass(frozen=True)
class Measure:
    """What a node is to measure, of a benchmark by the hash of its hparams file."""

    benchmark: str
    portion: Portion


@dataclass(frozen=True)
class Said:
    """The end of what the judge has printed; also without news, so that silence means something."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The judge, or the measurement, has ended: with a document or without, and how."""

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
