"""What the way between machines adds to a time."""

from pydantic import Field

from harness.records import Record


class NodeDelay(Record):
    """How far one machine of several was from the judge's clock in a run; the time includes it."""

    node: str = Field(description="address of its agent")
    release: float = Field(
        description="seconds from the release of the challenge until it lay in that machine's inbox"
    )
    commitment: float = Field(
        description="seconds from the end of its last commitment until the judge had it"
    )
    uncertainty: float = Field(
        description="seconds, either way: half of the shortest way there and back"
    )
