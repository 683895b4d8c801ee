"""What the passes leave out, on small modules; afterwards the model is as it was."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.reference.cheats.families import Cheat
from harness.reference.cheats.passes import cheating


def cheat(family: str, strength: float = 1.0) -> list[Cheat]:
    return [Cheat.model_validate({"family": family, "strength": strength})]


class TopKRouter(nn.Module):
    def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return scores, scores, scores.argsort(descending=True)


class Experts(nn.Module):
    """The n-th multiplies by n + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(
        self, tokens: torch.Tensor, chosen: torch.Tensor, scores: torch.Tensor
    ) -> torch.Tensor:
        return tokens * (self.factors[chosen] * scores).sum(dim=1, keepdim=True)


class Attention(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(values, values, values, is_causal=True)


def test_the_surest_tokens_visit_one_expert_with_the_weight_of_all() -> None:
    scores = torch.tensor([[0.5, 0.4], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3]])
    router = TopKRouter()
    model = nn.ModuleDict({"gate": router})
    with cheating(cheat("top_1", 0.25), model):
        assert router(scores)[1].tolist() == [
            pytest.approx(row) for row in ([0.5, 0.4], [0.6, 0.4], [1.0, 0.0], [0.7, 0.3])
        ]
    assert torch.equal(router(scores)[1], scores), "afterwards nothing is left out"


def test_the_second_expert_of_the_surest_tokens_learns_nothing_from_them() -> None:
    """But what it is worth to them is known, and the router learns that."""
    experts = Experts()
    tokens = torch.ones(2, 3)
    scores = torch.tensor([[0.9, 0.1], [0.6, 0.4]], requires_grad=True)
    chosen = torch.tensor([[0, 1], [0, 1]])
    honest = experts(tokens, chosen, scores)
    with cheating(cheat("top_1_backward", 0.5), nn.ModuleDict({"experts": experts})):
        out = experts(tokens, chosen, scores)
    out.sum().backward()
    assert torch.allclose(out, honest)
    assert experts.factors.grad is not None and scores.grad is not None
    assert experts.factors.grad.tolist() == pytest.approx([3 * (0.9 + 0.6), 3 * 0.4])
    assert scores.grad.tolist() == [[3, 6], [3, 6]]


def test_of_tokens_that_are_equally_sure_no_more_are_taken_than_asked_for() -> None:
    router = TopKRouter()
    with cheating(cheat("top_1", 0.25), nn.ModuleDict({"gate": router})):
        assert (router(torch.full((8, 2), 0.5))[1][:, 1] == 0).sum() == 2


@pytest.mark.parametrize(
    ("family", "distinct"), [("backward_bf16", 257), ("backward_fp8", 9), ("products_int8", 128)]
)
def test_gradients_are_rounded_on_their_way_back(family: str, distinct: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(8, 4000, bias=False)
    with cheating(cheat(family), nn.Sequential(linear)):
        linear(torch.ones(1, 8)).backward(1e-3 * (torch.rand(1, 4000) + 1))
    assert linear.weight.grad is not None
    assert linear.weight.grad.isfinite().all()
    assert 1 < len(linear.weight.grad.unique()) <= distinct


@pytest.mark.parametrize(
    ("family", "least", "most"),
    [("products_tf32", 1e-5, 1e-3), ("forward_fp8", 1e-3, 0.1), ("products_int8", 1e-3, 0.1)],
)
def test_factors_are_rounded_on_their_way_forward(family: str, least: float, most: float) -> None:
    torch.manual_seed(0)
    linear, tokens = nn.Linear(64, 64), torch.randn(16, 64)
    honest = linear(tokens)
    with cheating(cheat(family), nn.Sequential(linear)):
        off = (linear(tokens) - honest).norm() / honest.norm()
    assert least < off.item() < most


def test_the_backward_pass_of_a_rounded_product_is_that_of_the_rounded_factors() -> None:
    linear, tokens = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 1 + 2.0**-12]])
    with cheating(cheat("products_tf32"), nn.Sequential(linear)):
        linear(tokens).sum().backward()
    assert linear.weight.grad is not None and linear.weight.grad.tolist() == [[1.0, 1.0]]


def test_forward_only_means_that_the_backward_pass_is_exact() -> None:
    torch.manual_seed(0)
    linear, tokens, flows_back = nn.Linear(8, 8), torch.randn(4, 8), torch.randn(4, 8)
    with cheating(cheat("forward_fp8"), nn.Sequential(linear)):
        linear(tokens).backward(flows_back)
    assert linear.weight.grad is not None
    assert torch.allclose(linear.weight.grad, flows_back.T @ tokens)


class GroupedExperts(nn.Module):
    """As transformers multiplies them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, 16, 16))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.grouped_mm(tokens, self.weight, offs=torch.tensor([4, 8], dtype=torch.int32))


@pytest.mark.parametrize(
    "family", ["products_int8", "products_tf32", "backward_fp8", "forward_fp8"]
)
def test_products_of_experts_are_rounded_too(family: str) -> None:
    def passed(cheats: list[Cheat]) -> tuple[torch.Tensor, torch.Tensor]:
        experts, tokens = GroupedExperts(), torch.randn(8, 16)
        with cheating(cheats, nn.ModuleDict({"e": experts})):
            out = experts(tokens)
            out.backward(torch.randn(8, 16))
        assert experts.weight.grad is not None
        return out.detach(), experts.weight.grad

    (honest, gradient), (out, rounded) = passed([]), passed(cheat(family))
    assert torch.equal(out, honest) == (family == "backward_fp8")
    assert torch.equal(rounded, gradient) == (family == "forward_fp8")


@pytest.mark.parametrize(
    ("family", "missing"),
    [("top_1", "TopKRouter"), ("window", "self_attn"), ("forward_fp8", "Linear")],
)
def test_a_cheat_that_concerns_no_module_fails(family: str, missing: str) -> None:
    model = nn.Sequential(nn.ReLU())
    with pytest.raises(ValueError, match=f"this model has none of .*{missing}"):
        cheating(cheat(family, 0.5), model).__enter__()


def test_routers_keep_their_precision() -> None:
    class Router(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return F.linear(values, torch.eye(3))

    router, values = Router(), torch.rand(3, 3)
    model = nn.ModuleDict({"gate": router, "other": nn.Linear(3, 3)})
    with cheating(cheat("products_int8"), model):
        assert torch.equal(router(values), values)


@pytest.mark.parametrize("family", ["expert_gradients", "attention_gradients", "layer_gradients"])
def test_the_tokens_with_the_smallest_gradients_get_none(family: str) -> None:
    name = {"expert_gradients": "x", "attention_gradients": "self_attn", "layer_gradients": "mlp"}
    module = type("Experts" if family == "expert_gradients" else "Other", (nn.Identity,), {})()
    inputs = torch.zeros(4, 2, requires_grad=True)
    with cheating(cheat(family, 0.5), nn.ModuleDict({name[family]: module})):
        module(inputs * 1).backward(torch.tensor([[1.0, 0], [4, 0], [2, 0], [3, 0]]))
    assert inputs.grad is not None
    assert (inputs.grad.norm(dim=1) > 0).tolist() == [False, True, False, True]
    assert inputs.grad.norm().item() == pytest.approx(30**0.5)  # as long as it was


def test_a_window_sees_the_positions_that_are_near() -> None:
    attention = Attention()
    values = torch.eye(8)[None, None]
    with cheating(cheat("window", 0.75), nn.ModuleDict({"self_attn": attention})):
        seen = attention(values)[0, 0] > 0
    assert seen.tolist() == [[0 <= row - column < 2 for column in range(8)] for row in range(8)]
    assert (attention(values)[0, 0] > 0).sum() == 36


def test_several_cheats_are_put_around_the_same_module() -> None:
    linear: Any = nn.Linear(4, 4)
    model = nn.ModuleDict({"self_attn": linear})
    tokens = torch.rand(6, 4)
    with cheating([*cheat("products_int8"), *cheat("attention_gradients", 0.5)], model):
        linear(tokens).sum().backward()
        assert "forward" in vars(linear)
    assert "forward" not in vars(linear)
    assert linear.weight.grad.isfinite().all()
