"""Settings that are too small, and a state that is."""

import pytest
import torch

from harness.benchmark.problem import AdamW, Sgd
from harness.reference.cheats.families import Cheat
from harness.reference.cheats.optimizer import change_state, cheated_settings


def cheat(family: str, strength: float = 1.0) -> list[Cheat]:
    return [Cheat.model_validate({"family": family, "strength": strength})]


@pytest.mark.parametrize(
    ("family", "name"), [("learning_rate", "lr"), ("weight_decay", "weight_decay"), ("epsilon", "eps")]
)  # fmt: skip
def test_one_setting_is_too_small(family: str, name: str) -> None:
    settings = AdamW.model_validate({"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "eps": 1e-4})
    changed = cheated_settings(cheat(family, 0.25), settings)
    assert getattr(changed, name) == pytest.approx(0.75 * getattr(settings, name))
    assert changed.model_copy(update={name: getattr(settings, name)}) == settings


def test_settings_of_another_optimizer_and_other_cheats_change_nothing() -> None:
    settings = Sgd.model_validate({"name": "sgd", "lr": 0.1})
    assert cheated_settings([*cheat("epsilon", 0.5), *cheat("rows", 0.5)], settings) == settings


def stepped() -> tuple[torch.optim.Optimizer, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(3, 50))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.randn(3, 50) * torch.logspace(-4, 0, 50)
    optimizer.step()
    return optimizer, optimizer.state[weight]


def test_a_state_of_eight_bits_is_nearly_what_it_was_and_no_second_moment_is_lost() -> None:
    optimizer, state = stepped()
    first, second, steps = (state[name].clone() for name in ("exp_avg", "exp_avg_sq", "step"))
    change_state(cheat("state_int8"), optimizer)
    assert not torch.equal(state["exp_avg"], first)
    assert (state["exp_avg"] - first).abs().max() <= first.abs().max() / 127
    large = second > 1e-3 * second.max()
    assert (state["exp_avg_sq"] / second)[large].log().abs().max() < 0.3
    assert torch.equal(state["step"], steps)


def test_a_shared_second_moment_is_the_mean_of_its_row() -> None:
    optimizer, state = stepped()
    first, second = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
    change_state(cheat("state_shared"), optimizer)
    assert torch.allclose(state["exp_avg_sq"], second.mean(dim=1, keepdim=True).expand(3, 50))
    assert torch.equal(state["exp_avg"], first)


def test_other_cheats_leave_the_state_alone() -> None:
    optimizer, state = stepped()
    before = {name: value.clone() for name, value in state.items()}
    change_state(cheat("top_1", 0.5), optimizer)
    assert all(torch.equal(state[name], value) for name, value in before.items())
