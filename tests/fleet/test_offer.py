"""What a node offers travels as Ray's resources, and decides what it is for."""

from dataclasses import replace

import pytest

from harness.board.queue import WorkerId
from harness.board.tables import WORKER_CHARACTERS
from harness.fleet import dispatch
from harness.fleet.offer import MACHINE, Needs, Node, Offer

OFFER = Offer(
    node="gpu7-1a2b", host="gpu7", kernel="0b1e", version="0.1.0", cores=96, cpu="x86_64, fast",
    gpus=8, gpu="NVIDIA H100 80GB HBM3", level="docker", benchmarks=("a" * 64, "b" * 64),
)  # fmt: skip
CPUS = OFFER.model_copy(update={"gpus": 0, "gpu": "", "cores": 2, "cpu": "x86_64"})
NEEDS = Needs("a" * 64, "auto", 8, "8 x NVIDIA H100 80GB HBM3", ("docker",), "0.1.0")


@pytest.mark.parametrize("offer", [OFFER, CPUS])
def test_an_offer_survives_being_resources(offer: Offer) -> None:
    resources = offer.resources()
    assert Offer.of({"CPU": 4.0, "node:192.0.2.1": 1.0, **resources}) == offer
    assert not any("," in name for name in resources)
    assert resources[MACHINE] == 1


def test_a_node_of_somebody_else_offers_nothing() -> None:
    assert Offer.of({"CPU": 4.0, "memory": 1e9}) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"hardware": ""}, ""),
        ({"world_size": 4, "hardware": "4 x NVIDIA H100 80GB HBM3"}, ""),
        ({"world_size": 16}, "it has 8 GPUs for 16 ranks"),
        (
            {"hardware": "8 x NVIDIA H200"},
            "it is of the class 8 x NVIDIA H100 80GB HBM3, and the season of 8 x NVIDIA H200",
        ),
        ({"hparams_sha256": "c" * 64}, "it does not hold the benchmark's snapshot"),
        ({"levels": ("bubblewrap",)}, "it isolates at level docker, and bubblewrap may be ranked"),
        ({"version": "0.2.0"}, "it has version 0.1.0 of this program, and the dispatcher 0.2.0"),
    ],
)  # fmt: skip
def test_a_season_s_needs_decide_which_nodes_it_has(change: dict[str, object], why: str) -> None:
    assert replace(NEEDS, **change).why_not(OFFER) == why  # type: ignore[arg-type]


def test_a_benchmark_of_cpus_takes_no_gpus_and_names_the_class_as_boards_do() -> None:
    needs = replace(NEEDS, device="cpu", hardware="96 CPU cores, x86_64, fast")
    assert (needs.why_not(OFFER), needs.gpus(OFFER)) == ("", 0)
    assert NEEDS.gpus(OFFER) == 8
    auto = replace(NEEDS, hardware="2 CPU cores, x86_64", world_size=2)
    assert (auto.why_not(CPUS), auto.gpus(CPUS)) == ("", 0)


def test_a_worker_has_a_name_that_the_store_takes_however_long_those_of_hosts_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = "h" * 63
    here = WorkerId(f"{'d' * 63} pid:[4026531836] 12345 6789", "kernel")
    monkeypatch.setattr(dispatch, "this_worker", lambda: here)
    offer = OFFER.model_copy(update={"host": host, "node": f"{host}-1a2b3c"})
    name = dispatch.worker_of(Node("1", offer, False, "")).name
    assert len(name) <= WORKER_CHARACTERS
    assert name.startswith(f"{host} node {host}-1a2b3c of d")
    assert name.endswith(" pid:[4026531836] 12345 6789")
    short = dispatch.worker_of(Node("1", OFFER, False, "")).name
    assert short == f"gpu7 node gpu7-1a2b of {here.name}"
