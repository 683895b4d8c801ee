"""A measurement over several nodes, without Ray: others do what a dead one had, and all is pooled."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.rules import CalibrationVariant
from harness.calibrate.evidence import Evidence
from harness.errors import InputError, JudgeError
from harness.fleet.measured import OnFleet
from harness.fleet.offer import Node
from harness.fleet.reports import Ended, Lost, Measure, Portion, Report, Said, Unable
from harness.fleet.spread import Spread, divided, nodes_for
from harness.power.measured import nothing_yet
from tests.fleet.nodes import VERSION
from tests.fleet.test_offer import CPUS, NEEDS, OFFER

WHOLE = Portion(what="calibrate", runs=10)


class Task:
    def __init__(self, reports: Iterator[Report]) -> None:
        self.reports, self.ended = reports, False

    def next(self, seconds: float) -> Report | None:
        return next(self.reports, None)

    def end(self) -> None:
        self.ended = True


@dataclass
class Made:
    """A fleet whose nodes do what `work` says."""

    work: Callable[[str, Portion], Report]
    names: tuple[str, ...] = ("left", "right")
    tasks: list[Task] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def nodes(self) -> tuple[Node, ...]:
        offers = {name: OFFER.model_copy(update={"node": name}) for name in self.names}
        return tuple(Node(name, offer, False, "H100") for name, offer in offers.items())

    def start(self, node: Node, gpus: int, order: Measure) -> Task:
        with self.lock:
            self.asked.append((node.name, order.portion.runs))
        task = Task(iter([Said("x"), self.work(node.name, order.portion)]))
        self.tasks.append(task)
        return task


def measured(made: Made, portions: list[Portion]) -> list[bytes]:
    taken: list[bytes] = []
    Spread(made, "a" * 64, 8, taken.append, lambda line: None).run(made.nodes(), portions)
    assert all(task.ended for task in made.tasks)
    return taken


def fine(name: str, portion: Portion) -> Report:
    return Ended(b"%d" % portion.runs, 0, "")


@pytest.mark.parametrize(("nodes", "sizes"), [(1, [5, 5]), (2, [3, 3, 2, 2]), (20, [1] * 10)])
def test_a_whole_is_divided_evenly(nodes: int, sizes: list[int]) -> None:
    assert [each.runs for each in divided(WHOLE, nodes)] == sizes


def test_every_portion_is_measured_once() -> None:
    made = Made(fine)
    assert sorted(measured(made, divided(WHOLE, 2))) == [b"2", b"2", b"3", b"3"]


def test_what_a_dead_node_had_goes_to_another() -> None:
    made = Made(
        lambda name, portion: Lost("its node died") if name == "left" else fine(name, portion)
    )
    assert len(measured(made, divided(WHOLE, 2))) == 4
    assert [name for name, _ in made.asked].count("left") <= 1


def test_no_node_left_is_our_failure() -> None:
    with pytest.raises(JudgeError, match="no node is left, and 4 portions are"):
        measured(Made(lambda name, portion: Unable("its disk is full")), divided(WHOLE, 2))


def test_what_fails_again_and_again_is_given_up() -> None:
    made = Made(lambda name, portion: Ended(None, 3, "a reference failed"))
    with pytest.raises(JudgeError, match=r"failed 3 times, last on \w+: a reference failed"):
        measured(made, [WHOLE])
    assert len(made.asked) == 3


def test_a_benchmark_that_cannot_be_measured_is_the_caller_s_mistake() -> None:
    made = Made(lambda name, portion: Ended(None, 2, "no such family"))
    with pytest.raises(InputError, match=r"\w+ cannot measure this: no such family"):
        measured(made, [WHOLE])


def test_on_each_node_the_same() -> None:
    made = Made(fine)
    taken: list[bytes] = []
    Spread(made, "", 0, taken.append, lambda line: None).run_on_each(made.nodes(), WHOLE)
    assert sorted(made.asked) == [("left", 10), ("right", 10)]


def test_noise_is_of_one_class() -> None:
    made = Made(fine)
    anything = replace(NEEDS, hardware="", world_size=2)
    assert len(nodes_for(made, anything)) == 2
    with pytest.raises(InputError, match="it does not hold the benchmark's snapshot"):
        nodes_for(made, replace(anything, hparams_sha256="c" * 64))
    mixed = Made(fine)
    cpu = Node("cpu", CPUS, False, "")
    mixed.nodes = lambda: (*made.nodes(), cpu)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="name one with --hardware"):
        nodes_for(mixed, anything)
    assert nodes_for(mixed, replace(anything, hardware="2 CPU cores, x86_64")) == [cpu]


def test_what_nodes_measured_of_a_calibration_is_pooled(loaded: LoadedHparams) -> None:
    def work(name: str, portion: Portion) -> Report:
        values = {"loss": (0.1,) * portion.runs}
        variant = CalibrationVariant(
            name="bf16", runs=portion.runs, counted=True, worst={"loss": 0.1}, values=values
        )
        evidence = Evidence(
            benchmark="b", benchmark_sha256="0" * 64, date="2026-11-30", torch="2", transformers="5",
            device=name, variants=(variant,),
        )  # fmt: skip
        return Ended(evidence.model_dump_json().encode(), 0, "")

    class Right(Made):
        def nodes(self) -> tuple[Node, ...]:
            changes = {"benchmarks": (loaded.sha256,), "version": VERSION}
            return tuple(
                replace(node, offer=node.offer.model_copy(update=changes))
                for node in super().nodes()
            )

    kept: list[Evidence] = []
    there = OnFleet(Right(work), "", lambda line: None)
    found = there.calibrate(loaded, None, kept.append, 10, "")
    assert [(each.name, each.runs) for each in found.variants] == [("bf16", 10)]
    assert kept[-1] == found
    assert len(kept) == 4
    power = nothing_yet(loaded.hparams)
    empty = Right(lambda name, portion: Ended(power.model_dump_json().encode(), 0, ""))
    assert (
        OnFleet(empty, "", lambda line: None).power(loaded, power, lambda _: None, 4, ()) == power
    )
