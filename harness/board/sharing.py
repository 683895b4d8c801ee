"""Steps of several threads in one transaction: a commit waits for the disk, and so they wait together."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from harness.board.writer import Writer
from harness.errors import TrainjudgeError


class UndoneError(Exception):
    """Raised by a step: it alone is undone."""


@dataclass(eq=False)
class Step:
    """What a thread wants to write, and what came of it.

    Attributes:
        write: is given the writer; where it raises an error of ours, or that, this step alone is undone.
        over: set once it is known what came of it.
        answer: what `write` gave.
        error: what it raised, or what became of the whole transaction.
    """

    write: Callable[[Writer], Any]
    over: threading.Event = field(default_factory=threading.Event)
    answer: Any = None
    error: BaseException | None = None

    def carry_out(self, writer: Writer) -> None:
        """In a part of the transaction that can be undone by itself."""
        own = replace(writer, taken=dict(writer.taken))
        try:
            with writer.session.begin_nested():
                self.answer = self.write(own)
        except (TrainjudgeError, UndoneError) as error:
            self.error = error
        else:
            writer.taken.update(own.taken)

    def outcome(self) -> Any:
        """What `write` gave, once it is known. Raises what it raised, or what became of the transaction."""
        self.over.wait()
        if self.error is not None:
            raise self.error
        return self.answer
