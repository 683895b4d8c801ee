"""The fleet for people: its nodes, what each of them judges, and what waits."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from harness.board.store import Store
from harness.board.waiting import QueueEntry, queue_length, queue_view
from harness.fleet.canaries import Known, known
from harness.fleet.offer import Node, Offer


@dataclass(frozen=True)
class Work:
    """What the store knows.

    Attributes:
        running: evaluations, by the name of their worker.
        waiting: how many more there are.
        nodes: canaries, and who is excluded.
    """

    running: tuple[QueueEntry, ...]
    waiting: int
    nodes: Known

    def state(self, node: Node) -> Text:
        """Whether it takes anything."""
        if node.offer.host in self.nodes.excluded:
            return Text(f"excluded: {self.nodes.excluded[node.offer.host]}", style="red")
        if node.draining:
            return Text("draining", style="yellow")
        return Text("serves", style="green")

    def canary(self, node: Node, now: float) -> str:
        """Its last one, in words."""
        if node.offer.host not in self.nodes.last:
            return "none yet"
        at, outcome = self.nodes.last[node.offer.host]
        return f"{outcome}, {max(0.0, now - at) / 3600:.1f} h ago"

    def of(self, node: Node) -> str:
        """What a node judges, in words."""
        for entry in self.running:
            if entry.worker is not None and f" node {node.name} " in f"{entry.worker} ":
                said = entry.progress.strip().splitlines()
                last = f": {said[-1]}" if said else ""
                return f"evaluation {entry.evaluation}, {entry.file_name} of {entry.author}{last}"
        return "something else" if node.taken else "nothing"


def work_of(store: Store, hparams_sha256: str) -> Work:
    """Of one moment."""
    with store.read() as session:
        running = tuple(row for row in queue_view(session, limit=0) if row.position == 0)
        return Work(running, queue_length(session), known(session, hparams_sha256))


def fleet_table(nodes: Iterable[Node], work: Work, now: float) -> Table:
    """A line for each node."""
    columns = ("node", "class", "level", "benchmarks", "state", "canary", "judges")
    table = Table(*columns, header_style="bold")
    for node in nodes:
        table.add_row(
            node.name,
            Text(hardware_of(node.offer)),
            node.offer.level,
            ", ".join(each[:12] for each in node.offer.benchmarks),
            work.state(node),
            work.canary(node, now),
            Text(work.of(node)),
        )
    table.caption = f"{work.waiting} evaluation(s) wait"
    return table


def hardware_of(offer: Offer) -> str:
    """All that a node has, as a hardware class."""
    return offer.hardware("auto", offer.gpus or 1) or ""
