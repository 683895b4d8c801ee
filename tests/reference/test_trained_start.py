"""On a trained start rounding and left-out work lie close together: directions have to tell them apart."""

from collections.abc import Iterator

import pytest

from harness.benchmark.hparams import load
from harness.benchmark.preload import preload
from harness.lab import Lab
from harness.reference.cheats.families import Cheat
from harness.reference.outcome import ReferenceRun
from harness.reference.task import Variant, default_variant
from harness.verify.filters import Along
from tests.forked_ranks import ForkedRanks
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

STEPS = 4
LOW = "tokens with a low loss are not trained on"


@pytest.fixture(scope="module")
def lab(forked_ranks: ForkedRanks) -> Iterator[Lab]:
    """One challenge, looked at in every step."""
    loaded = load(ROOT / "profiles" / "embedded-trained.json")
    verify = loaded.hparams.verify.model_copy(
        update={"filter_steps": STEPS, "token_loss_share": 0.0}
    )
    steps = loaded.hparams.steps.model_copy(update={"min": STEPS, "max": STEPS})
    hparams = loaded.hparams.model_copy(update={"verify": verify, "steps": steps})
    with Lab.opened(hparams, preload(loaded), forked_ranks, 1) as opened:
        yield opened


@pytest.fixture(scope="module")
def base(lab: Lab) -> Variant:
    return default_variant(lab.hparams, 1)


@pytest.fixture(scope="module")
def reference(lab: Lab, base: Variant) -> list[ReferenceRun]:
    return lab.reference(base)


def along(lab: Lab, reference: list[ReferenceRun], variant: Variant) -> dict[str, float]:
    """z of a run that is trained so, by what would be left out."""
    [measured] = lab.measure(reference, lab.run("other", variant))
    lab.discard("other")
    found: tuple[Along, ...] = measured.seen.alongs[0]
    return {each.left_out: each.z for each in found}


def test_honest_rounding_has_none_of_the_directions(
    lab: Lab, base: Variant, reference: list[ReferenceRun]
) -> None:
    """Where the reference's own gradient, in bfloat16, is one of both, all that it rounds is along."""
    exact = along(lab, reference, base.model_copy(update={"compute_dtype": "float32"}))
    assert max(exact.values()) < 6


def test_tokens_that_are_nearly_certain_are_missed(
    lab: Lab, base: Variant, reference: list[ReferenceRun]
) -> None:
    cheat = Cheat(family="lowest_loss_tokens", strength=0.2)
    left_out = along(lab, reference, base.model_copy(update={"cheats": (cheat,)}))
    assert left_out[LOW] > 6
