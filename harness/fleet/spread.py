"""A measurement that is many evaluations at once, spread over all nodes of one class, portion by portion.

There is no store that would try again: a portion whose node dies goes to another one, three times at most.
What was measured is taken as soon as its portion is whole.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.errors import Code, InputError, JudgeError
from harness.fleet.offer import Needs, Node
from harness.fleet.remote import LOOK_SECONDS, Task
from harness.fleet.reports import Ended, Lost, Measure, Portion, Said, Unable
from harness.phases import OnProgress

TRIES: Final = 3
#: Portions for each node: the faster ones take more, and what a death costs is small.
PORTIONS_PER_NODE: Final = 2


class Fleet(Protocol):
    """The nodes; `cluster.Cluster`."""

    def nodes(self) -> Sequence[Node]: ...
    def start(self, node: Node, gpus: int, order: Measure) -> Task: ...


def nodes_for(fleet: Fleet, needs: Needs) -> list[Node]:
    """All nodes that can measure it. Raises InputError: there are none, or they are of several classes."""
    living = [node for node in fleet.nodes() if not node.draining]
    reasons = {node.name: needs.why_not(node.offer) for node in living}
    fit = [node for node in living if not reasons[node.name]]
    if not fit:
        why = (
            "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "it has no nodes"
        )
        raise InputError(Code.BAD_ARGUMENT, f"no node of the fleet can measure this: {why}")
    classes = {node.offer.hardware(needs.device, needs.world_size) or "" for node in fit}
    if len(classes) > 1:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"noise is of one hardware class, and the nodes are of {', '.join(sorted(classes))}: name one "
            "with --hardware",
        )
    return fit


def divided(whole: Portion, nodes: int) -> list[Portion]:
    """Into portions of about equal length."""
    count = min(whole.runs, nodes * PORTIONS_PER_NODE)
    sizes = [whole.runs // count + (number < whole.runs % count) for number in range(count)]
    return [whole.model_copy(update={"runs": size}) for size in sizes]


@dataclass
class _Waiting:
    portion: Portion
    tries: int = 0


Line = queue.SimpleQueue[_Waiting]


def _line(portions: Sequence[Portion]) -> Line:
    line: Line = queue.SimpleQueue()
    for portion in portions:
        line.put(_Waiting(portion))
    return line


@dataclass
class Spread:
    """Args:
    fleet: where it is measured.
    benchmark: hash of the hparams file.
    gpus: of each node.
    take: is given each document, one at a time.
    say: told how it goes.
    """

    fleet: Fleet
    benchmark: str
    gpus: int
    take: Callable[[bytes], None]
    say: OnProgress
    _left: int = 0
    _ending: bool = False
    _failure: Exception | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, nodes: Sequence[Node], portions: Sequence[Portion]) -> None:
        """Until all portions are measured.

        Raises InputError: a node cannot measure this; JudgeError: it failed too often, or no node is left.
        """
        shared = _line(portions)
        self._run(dict.fromkeys(nodes, shared), len(portions))

    def run_on_each(self, nodes: Sequence[Node], portion: Portion) -> None:
        """The same on every node, for what is a machine's own. Raises as `run` does."""
        self._run({node: _line([portion]) for node in nodes}, len(nodes))

    def _run(self, lines: Mapping[Node, Line], count: int) -> None:
        self._left = count
        threads = [
            threading.Thread(target=self._serve, args=each, name=each[0].name)
            for each in lines.items()
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(LOOK_SECONDS)  # a signal interrupts us here
        finally:
            self._ending = True
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        if self._left:
            raise JudgeError(Code.INTERNAL, f"no node is left, and {self._left} portions are")

    def _serve(self, node: Node, line: Line) -> None:
        """A node takes portions until none is left, or it dies."""
        while self._left and not self._ending and self._failure is None:
            try:
                waiting = line.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue  # another node may die yet, and leave one
            try:
                if not self._measure(node, waiting, line):
                    return
            except Exception as error:
                self._failure = error
                return

    def _measure(self, node: Node, waiting: _Waiting, line: Line) -> bool:
        """Whether the node can go on. Raises InputError, JudgeError."""
        waiting.tries += 1
        self.say(f"{node.name}: {waiting.portion.what}, {waiting.portion.runs} runs")
        task = self.fleet.start(node, self.gpus, Measure(self.benchmark, waiting.portion))
        try:
            ended = self._watch(node, task)
        finally:
            task.end()
        if isinstance(ended, Ended) and ended.status == 0:
            with self._lock:
                if ended.document is not None:
                    self.take(ended.document)
                self._left -= 1
            self.say(f"{node.name}: done")
            return True
        if ended is None:
            return False
        cause = ended.last_line if isinstance(ended, Ended) else ended.cause
        if isinstance(ended, Ended) and ended.status == InputError.exit_status:
            raise InputError(Code.BAD_ARGUMENT, f"{node.name} cannot measure this: {cause}")
        if waiting.tries >= TRIES:
            raise JudgeError(
                Code.INTERNAL, f"a portion failed {TRIES} times, last on {node.name}: {cause}"
            )
        self.say(f"{node.name}: {cause}; once more")
        line.put(waiting)
        return isinstance(ended, Ended)

    def _watch(self, node: Node, task: Task) -> Ended | Unable | Lost | None:
        """How a portion ended; None where all have to."""
        shown = ""
        while not self._ending and self._failure is None:
            match task.next(LOOK_SECONDS):
                case Said(text=text):
                    last = (text.strip().splitlines() or [""])[-1].removeprefix("· ")
                    if last != shown:
                        self.say(f"{node.name}: {last}")
                        shown = last
                case Ended() | Unable() | Lost() as ended:
                    return ended
        return None
