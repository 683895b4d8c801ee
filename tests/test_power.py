"""Graded cheats: each leaves out what it says, the table counts what was found, and a bound bounds."""

from pathlib import Path

import pytest
import torch

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.model_config import load_config
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.power import STRENGTHS, Case, Power, at_least, measure, saved, table, unseen
from harness.reference.cheats import FAMILIES, Cheat, cheating, token_weights
from harness.score.flops import count_parameters
from tests.forked_ranks import ForkedRanks

pytest_plugins = ("tests.judging",)


def test_every_family_has_strengths() -> None:
    assert set(STRENGTHS) == set(FAMILIES)
    for strengths in STRENGTHS.values():
        assert list(strengths) == sorted(strengths)
        assert strengths[0] > 0 and strengths[-1] <= 1


@pytest.mark.parametrize(
    ("family", "strength", "dropped"),
    [
        ("last_positions", 0.25, {(r, t) for r in range(4) for t in (6, 7)}),
        ("rows", 0.25, {(3, t) for t in range(8)}),
        ("lowest_loss_tokens", 0.1, {(0, 0), (0, 1), (0, 2), (0, 3)}),
    ],
)
def test_tokens_are_left_out_and_the_rest_counts_more(
    family: str, strength: float, dropped: set[tuple[int, int]]
) -> None:
    losses = torch.arange(32.0).view(4, 8)
    weights = token_weights(Cheat.model_validate({"family": family, "strength": strength}), losses)
    assert isinstance(weights, torch.Tensor)
    assert {(int(r), int(t)) for r, t in (weights == 0).nonzero()} == dropped
    assert weights.mean().item() == pytest.approx(1)
    assert len(weights[weights > 0].unique()) == 1


def test_random_tokens_are_about_as_many_as_asked_for() -> None:
    torch.manual_seed(0)
    weights = token_weights(Cheat(family="random_tokens", strength=0.2), torch.ones(100, 100))
    assert isinstance(weights, torch.Tensor)
    assert (weights == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_honest_training_weighs_every_token_alike() -> None:
    assert token_weights(None, torch.ones(2, 2)) == 1.0
    assert token_weights(Cheat(family="top_1", strength=0.5), torch.ones(2, 2)) == 1.0


class TopKRouter(torch.nn.Module):
    def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return scores, scores, scores.argsort(descending=True)


def test_the_surest_tokens_visit_one_expert_with_the_weight_of_all() -> None:
    scores = torch.tensor([[0.5, 0.4], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3]])
    router = TopKRouter()
    model = torch.nn.ModuleDict({"gate": router})
    with cheating(Cheat(family="top_1", strength=0.25), model):
        assert router(scores)[1].tolist() == [
            pytest.approx(row) for row in ([0.5, 0.4], [0.6, 0.4], [1.0, 0.0], [0.7, 0.3])
        ]
    assert torch.equal(router(scores)[1], scores), "afterwards nothing is left out"


@pytest.mark.parametrize(("family", "distinct"), [("backward_bf16", 257), ("backward_fp8", 9)])
def test_gradients_are_rounded_on_their_way_back(family: str, distinct: int) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 4000, bias=False)
    model = torch.nn.Sequential(linear)
    inputs = torch.ones(1, 8)
    with cheating(Cheat.model_validate({"family": family, "strength": 1.0}), model):
        model(inputs).backward(1e-3 * (torch.rand(1, 4000) + 1))
    assert linear.weight.grad is not None
    assert linear.weight.grad.isfinite().all()
    assert 1 < len(linear.weight.grad.unique()) <= distinct


def test_the_tokens_with_the_smallest_gradients_get_none() -> None:
    experts = type("Experts", (torch.nn.Identity,), {})()
    inputs = torch.zeros(4, 2, requires_grad=True)
    with cheating(
        Cheat(family="expert_gradients", strength=0.5), torch.nn.ModuleDict({"x": experts})
    ):
        experts(inputs * 1).backward(torch.tensor([[1.0, 0], [4, 0], [2, 0], [3, 0]]))
    assert inputs.grad is not None
    assert (inputs.grad.norm(dim=1) > 0).tolist() == [False, True, False, True]
    assert inputs.grad.norm().item() == pytest.approx(30**0.5)  # as long as it was


# --- what it saves, and how it is told --------------------------------------------------------------


def test_savings_are_those_of_the_embedded_model(snapshot: Snapshot) -> None:
    """By hand: 4 layers of 128 x (128 + 2·64 + 128), 2 of 8 experts of 3·128², a router; 2048 x 128."""
    count = count_parameters(load_config(str(snapshot.model_dir)))
    head, attention, expert = 2048 * 128, 128 * (128 + 128 + 128), 3 * 128 * 128
    products = 6 * (head + 4 * (attention + 2 * expert + 8 * 128)) + 12 * 4 * 128 * 256
    by_hand = {
        ("random_tokens", 0.1): 0.1 * 6 * head / products,
        ("lowest_loss_tokens", 0.1): 0.1 * 4 * head / products,
        ("last_positions", 0.1): 0.1,
        ("top_1", 0.2): 0.2 * 6 * 4 * expert / products,
        ("expert_gradients", 0.2): 0.2 * 4 * 4 * 2 * expert / products,
        ("backward_fp8", 1.0): 1 / 3,
        ("learning_rate", 0.01): 0.0,
    }
    for (family, strength), part in by_hand.items():
        cheat = Cheat.model_validate({"family": family, "strength": strength})
        assert saved(cheat, count, 256) == pytest.approx(part, rel=1e-6), family


@pytest.mark.parametrize(
    ("found", "runs", "bound"), [(0, 5, 0.0), (1, 1, 0.05), (59, 59, 0.9505), (5, 10, 0.2224)]
)
def test_the_bound_is_that_of_clopper_and_pearson(found: int, runs: int, bound: float) -> None:
    assert at_least(found, runs) == pytest.approx(bound, abs=1e-4)


def case(strength: float, found: int) -> Case:
    return Case(
        family="top_1", strength=strength, saves=strength / 4, runs=4, found=found, strict=0,
        nearest="token_group_shift", times=1.5,
    )  # fmt: skip


def test_the_table_and_what_passes_unseen() -> None:
    power = Power(
        benchmark="b", evaluation_runs=2, cases=(case(0.01, 0), case(0.02, 3), case(0.05, 4))
    )
    assert unseen(power) == {"top_1": 0.005}
    strict = power.cases[1].model_copy(update={"strict": 4})
    assert unseen(power.model_copy(update={"cases": (case(0.01, 4), strict)})) == {"top_1": 0.0}
    rows = table(power).splitlines()
    assert rows[3] == "| top 1 | 2.00% | 0.50% | 3 of 4 | 25% | 0 | token_group_shift 1.5× |"
    assert len(rows) == 5


def test_an_unknown_family_is_the_callers_mistake(tmp_path: Path) -> None:
    from harness.api import measure_power

    with pytest.raises(InputError, match="no family nonsense; known: random_tokens") as caught:
        measure_power(None, None, "none", None, ["nonsense"], 1, None)
    assert caught.value.code is Code.BAD_ARGUMENT


def test_a_crude_cheat_is_found_and_none_at_all_is_not(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    forked_ranks: ForkedRanks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole way, with real training on short rows."""
    raw = loaded.hparams.model_dump()
    raw |= {"sequence_length": 32, "steps": {"min": 2, "max": 2}, "global_batch": 4}
    short = loaded.model_copy(update={"hparams": type(loaded.hparams).model_validate(raw)})
    monkeypatch.setattr("harness.power.STRENGTHS", {"rows": (0.25,), "learning_rate": (0.0,)})
    said: list[str] = []
    power = measure(short, snapshot, forked_ranks, ["rows", "learning_rate"], 1, said.append)
    rows, honest = power.cases
    assert (rows.found, honest.found) == (1, 0)
    assert rows.times > 1 > honest.times
    assert said[1:] == ["rows 0.25: found in 1 of 1 runs", "learning_rate 0: found in 0 of 1 runs"]
