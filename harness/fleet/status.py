"""The fleet for people: its nodes, what each of them judges, and what waits."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from harness.board.store import Store
from harness.board.waiting import QueueEntry, queue_length, queue_view
from harness.fleet.offer import Node, Offer


@dataclass(frozen=True)
class Work:
    """What the store knows: what runs, by the name of its worker, and how much waits."""

    running: tuple[QueueEntry, ...]
    waiting: int

    def of(self, node: Node) -> str:
        """What a node judges, in words."""
        for entry in self.running:
            if entry.worker is not None and f" node {node.name} " in f"{entry.worker} ":
                said = entry.progress.strip().splitlines()
                last = f": {said[-1]}" if said else ""
                return f"evaluation {entry.evaluation}, {entry.file_name} of {entry.author}{last}"
        return "draining" if node.draining else "nothing"


def work_of(store: Store) -> Work:
    """Of one moment."""
    with store.read() as session:
        running = tuple(row for row in queue_view(session, limit=0) if row.position == 0)
        return Work(running, queue_length(session))


def fleet_table(nodes: Iterable[Node], work: Work | None) -> Table:
    """A line for each node; without the store nobody knows what it judges."""
    table = Table("node", "class", "level", "benchmarks", "state", "judges", header_style="bold")
    for node in nodes:
        table.add_row(
            node.name,
            Text(hardware_of(node.offer)),
            node.offer.level,
            ", ".join(each[:12] for each in node.offer.benchmarks),
            Text("draining", style="yellow") if node.draining else Text("serves", style="green"),
            Text("?" if work is None else work.of(node)),
        )
    if work is not None:
        table.caption = f"{work.waiting} evaluation(s) wait"
    return table


def hardware_of(offer: Offer) -> str:
    """All that a node has, as a hardware class."""
    return offer.hardware("auto", offer.gpus or 1) or ""
