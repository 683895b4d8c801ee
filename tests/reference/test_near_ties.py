"""Near ties of the router are decided by lot, and nothing else is disturbed."""

import pytest
import torch

from harness.reference.step import NearTies
from harness.reference.task import Variant

CPU = torch.device("cpu")
BASE = Variant(world_size=1, micro_batches=1, compute_dtype="float32", near_ties=1e-5)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)


def chosen(variant: Variant, scores: torch.Tensor) -> torch.Tensor:
    with NearTies(variant, CPU):
        found = torch.topk(scores, 2, dim=-1)
    assert torch.equal(found.values, scores.gather(-1, found.indices)), (
        "the scores are the true ones"
    )
    return found.indices


def test_scores_that_are_nearly_alike_are_told_apart_by_lot() -> None:
    scores = torch.tensor([0.5, 0.3, 0.3 * (1 + 1e-7), 0.1]).repeat(400, 1)
    second = chosen(BASE, scores)[:, 1]
    assert set(second.tolist()) == {1, 2}
    assert 100 < (second == 1).sum() < 300


def test_scores_that_differ_are_in_their_order() -> None:
    scores = torch.tensor([0.5, 0.3, 0.2999, 0.1]).repeat(400, 1)
    assert torch.equal(chosen(BASE, scores), torch.tensor([0, 1]).repeat(400, 1))
