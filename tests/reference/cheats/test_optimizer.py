"""Settings that are too small, and a state that is."""

import pytest
import torch

from harness.benchmark.problem import AdamW, Sgd
from harness.reference.cheats.families import Cheat
from harness.reference.cheats.optimizer import change_state, step_settings

ADAMW = AdamW.model_validate({"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "eps": 1e-4})


def cheat(family: str, strength: float = 1.0) -> list[Cheat]:
    return [Cheat.model_validate({"family": family, "strength": strength})]


@pytest.mark.parametrize(
    ("family", "name"), [("learning_rate", "lr"), ("weight_decay", "weight_decay"), ("epsilon", "eps")]
)  # fmt: skip
def test_one_setting_is_too_small(family: str, name: str) -> None:
    whole, changed = (step_settings(cheats, ADAMW, 5) for cheats in ([], cheat(family, 0.25)))
    assert whole == {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-4}
    assert changed == pytest.approx({**whole, name: 0.75 * whole[name]})


def test_settings_of_another_optimizer_and_other_cheats_change_nothing() -> None:
    settings = Sgd.model_validate({"name": "sgd", "lr": 0.1})
    others = [*cheat("epsilon", 0.5), *cheat("bias_correction"), *cheat("rows", 0.5)]
    assert step_settings(others, settings, 0) == {"lr": 0.1, "weight_decay": 0.0}


def test_a_step_has_the_rate_of_the_warm_up() -> None:
    settings = ADAMW.model_copy(update={"warmup_steps": 4})
    rates = [step_settings([], settings, step)["lr"] for step in range(6)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_without_bias_correction_moments_are_taken_as_they_are(strength: float) -> None:
    """By hand, with the decay as the benchmark has it: the corrections have a power of what is left."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(20, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], betas=(ADAMW.beta1, ADAMW.beta2))
    by_hand, first, second = weight.detach().clone(), torch.zeros(20), torch.zeros(20)
    for step in range(3):
        gradient = torch.randn(20, dtype=torch.float64) * 1e-3
        weight.grad = gradient
        optimizer.param_groups[0].update(
            step_settings(cheat("bias_correction", strength), ADAMW, step)
        )
        optimizer.step()
        first = ADAMW.beta1 * first + (1 - ADAMW.beta1) * gradient
        second = ADAMW.beta2 * second + (1 - ADAMW.beta2) * gradient.square()
        mean = first / (1 - ADAMW.beta1 ** (step + 1)) ** (1 - strength)
        root = second.sqrt() / (1 - ADAMW.beta2 ** (step + 1)) ** ((1 - strength) / 2)
        by_hand = by_hand * (1 - 0.01 * 0.1) - 0.01 * mean / (root + ADAMW.eps)
    assert torch.allclose(weight.detach(), by_hand, rtol=1e-9)


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
