"""Every family does something to the embedded model: one that fits no module would never be found."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from harness.benchmark.hparams import load
from harness.benchmark.model_config import config_from_fields
from harness.benchmark.problem import AdamW, EmbeddedModel
from harness.power.families import STRENGTHS
from harness.reference.cheats.families import FAMILIES, LESS_EXACT, Cheat, Family
from harness.reference.cheats.gradients import GradientCheats
from harness.reference.cheats.local import turns
from harness.reference.cheats.optimizer import change_state, step_settings
from harness.reference.step import backward, build_optimizer
from harness.reference.task import Variant
from tests.project import ROOT

STEPS, ROWS, LENGTH = 4, 8, 33
ADAMW = AdamW.model_validate({"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "eps": 1e-4})


@cache
def initial() -> nn.Module:
    model = load(ROOT / "hparams.json").hparams.model
    assert isinstance(model, EmbeddedModel)
    config = config_from_fields(model.config | {"num_hidden_layers": 2, "vocab_size": 97})
    config.use_cache = False
    torch.manual_seed(0)
    built: nn.Module = AutoModelForCausalLM.from_config(config).train()
    return built


@cache
def trained(*cheats: Cheat) -> torch.Tensor:
    """All weights after some steps."""
    model = copy.deepcopy(initial())
    torch.manual_seed(1)
    rows = torch.randint(97, (STEPS, ROWS, LENGTH))
    optimizer = build_optimizer(ADAMW, model)
    variant = Variant(world_size=1, micro_batches=1, compute_dtype="float32", cheats=cheats)
    gradients = GradientCheats(cheats, model)
    for step, batch in turns(cheats, rows, model, optimizer):
        backward(model, batch, variant)
        gradients.change()
        optimizer.param_groups[0].update(step_settings(cheats, ADAMW, step))
        optimizer.step()
        change_state(cheats, optimizer)
        optimizer.zero_grad()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in LESS_EXACT])
def test_a_family_changes_the_update(family: Family) -> None:
    honest, strongest = trained(), Cheat(family=family, strength=STRENGTHS[family][-1])
    update = honest - torch.cat([each.detach().flatten() for each in initial().parameters()])
    off = (trained(strongest) - honest).norm() / update.norm()
    assert 1e-6 < off.item() < 2
