"""The judge as a child process of a worker: `validator run`, told to end as a person would tell it.

A judge that crashes, or is killed for its memory, takes no worker with it. If the worker itself is
killed, the kernel sends the judge SIGTERM, and it cleans up after itself.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from harness.board.child import Child, mark_folder
from harness.errors import Code, InputError
from harness.result import EvaluationResult

#: A judge that was asked to end has this long to end its sandbox and remove its folder.
END_SECONDS: Final = 60.0
SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.py")


@dataclass(frozen=True)
class Order:
    """What to judge and how.

    Attributes:
        command: the judge's, without the file: `validator run` and where it is.
        file_name: as the author calls it; used if it is harmless, since results show it.
        source: the train file.
        options: of the command.
    """

    command: tuple[str, ...]
    file_name: str
    source: bytes
    options: tuple[str, ...]


class JudgeProcess:
    """A running judge; leaving the `with` block ends it.

    Args:
        order: what to judge.
        folder: empty, gone after the evaluation.
        inherited: descriptors that stay open as long as the judge lives; one of them holds the machine.
    """

    def __init__(self, order: Order, folder: Path, inherited: Sequence[socket.socket]) -> None:
        mark_folder(folder)
        named = order.file_name if SAFE_NAME.fullmatch(order.file_name) else "submission.py"
        file = folder / "source" / named
        file.parent.mkdir()
        file.write_bytes(order.source)
        self._result = folder / "result.json"
        command = [*order.command, str(file), "--json", str(self._result), *order.options]
        self._child = Child(command, folder / "log", inherited)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._child.status

    def said(self) -> str:
        """The end of what it has printed, fit to be shown."""
        return self._child.said()

    def result(self) -> EvaluationResult | None:
        """Its document; None where it wrote none, or was killed while it did."""
        try:
            return EvaluationResult.model_validate_json(self._result.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def end(self) -> None:
        """Ask it to end and wait. Its sandbox ends with it: the lifeline of the supervisor closes."""
        self._child.end(END_SECONDS)


@dataclass(frozen=True)
class Judged:
    """What came of a judge: its result, else how it ended and what it said last.

    Attributes:
        lost: why nobody knows how it ended, as where its machine died; else empty.
    """

    result: EvaluationResult | None
    status: int | None
    last_line: str
    stopped: bool
    lost: str = ""

    @property
    def cause(self) -> str:
        """Why there is no result."""
        if self.lost:
            return self.lost
        if self.stopped:
            return "the worker was asked to end"
        by_signal = self.status is not None and self.status < 0
        ending = f"signal {-(self.status or 0)}" if by_signal else f"status {self.status}"
        return f"the judge ended with {ending} and no result: {self.last_line}"

    def check_machine(self) -> None:
        """Raises InputError where the judge could not work here: the next one would fail as well."""
        if self.result is None and self.status == InputError.exit_status:
            raise InputError(
                Code.BAD_ARGUMENT, f"this machine cannot judge this benchmark: {self.last_line}"
            )
