"""What is noticed beside the runs."""

from dataclasses import dataclass, field


@dataclass
class Observed:
    """Filled in while a submission runs; what is there counts also where that fails.

    Attributes:
        log: what the sandbox printed, and what the judge has to say of its end.
        others: what other programs had of the machine's cores meanwhile, 0 to 1; None: it did not get far
            enough to be known.
        excuses: whether what took too long is theirs, where they had much.
        room: bytes that the disk had for the outbox at the end; None: the same.
        not_ended: something that the submission started could not be ended.
    """

    log: list[str] = field(default_factory=list)
    others: float | None = None
    excuses: bool = True
    room: int | None = None
    not_ended: bool = False
