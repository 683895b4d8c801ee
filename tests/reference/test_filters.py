"""Directions of approximations, as the trusted loop computes them: a cheat moves along its own."""

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from harness.benchmark.challenge import Challenge, draw
from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.problem import AdamW, Sgd
from harness.benchmark.snapshot import Snapshot
from harness.comparison import Truth, compare
from harness.reference.cheats.families import Cheat
from harness.reference.directions import FILTERS
from harness.reference.filters import change
from harness.reference.launch import Asked, run_reference
from harness.reference.outcome import ReferenceRun, RunFolders, _read_directions
from harness.reference.step import build_optimizer
from harness.reference.task import DIRECTIONS, Variant
from harness.tensors.stored import trusted_state
from harness.verify.attribution import draw_coordinates
from tests.forked_ranks import ForkedRanks

pytest_plugins = ("tests.judging",)

STEPS = 3
SEED = "1".zfill(32)
SAMPLES = 100_000
EXACT = Variant(world_size=1, micro_batches=1, compute_dtype="float32")
ROUNDED = EXACT.model_copy(update={"compute_dtype": "bfloat16"})
CHEATS = {
    "last_positions": "the last positions of rows are not trained on",
    "top_1": "nothing flows back through a token's other experts",
    "attention_gradients": "small gradients do not flow back through attention",
}


@pytest.fixture(scope="module")
def hparams(loaded: LoadedHparams) -> Hparams:
    raw = loaded.hparams.model_dump()
    raw |= {
        "sequence_length": 64,
        "steps": {"min": STEPS, "max": STEPS},
        "optimizer": {"name": "adamw", "lr": 0.001, "eps": 1e-4, "max_grad_norm": 1.0},
    }
    return Hparams.model_validate(raw)


@pytest.fixture(scope="module")
def challenge(snapshot: Snapshot, hparams: Hparams) -> Challenge:
    """A fixed one: of so few tokens one whose near tie flips can be half of all rounding."""
    return draw(snapshot.tokens(), hparams, SEED)


@pytest.fixture(scope="module")
def runs(
    snapshot: Snapshot, hparams: Hparams, challenge: Challenge, forked_ranks: ForkedRanks
) -> Iterator[dict[str, ReferenceRun]]:
    folder = Path(tempfile.mkdtemp(prefix="trainjudge-test-"))
    folder.chmod(0o711)  # the reference is another user
    coordinates = draw_coordinates(snapshot.layout, SAMPLES, 0)

    def run(name: str, variant: Variant, *steps: int) -> ReferenceRun:
        asked = Asked([], steps=[steps]) if steps else None
        (found,) = run_reference(
            hparams, snapshot, [challenge], coordinates, variant, forked_ranks, "cpu",
            folder / name, asked,
        )  # fmt: skip
        return found

    two = {"world_size": 2, "attention": "eager"}
    found = {
        "looked at": run("looked", ROUNDED, 0, 2),
        "not looked at": run("not-looked", ROUNDED),
        "exact": run("exact", EXACT, 1),
        "exact, two ranks": run("ranks", EXACT.model_copy(update=two), 1),
        "honest": run("honest", ROUNDED.model_copy(update=two)),
    }
    for family in CHEATS:
        cheat = Cheat.model_validate({"family": family, "strength": 0.05})
        found[family] = run(family, ROUNDED.model_copy(update={"cheats": (cheat,)}))
    yield found
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def truth(
    runs: dict[str, ReferenceRun], snapshot: Snapshot, challenge: Challenge, hparams: Hparams
) -> Truth:
    initial = trusted_state(snapshot.state_dir, snapshot.layout)
    return Truth(initial, runs["looked at"], snapshot.layout, challenge, hparams.optimizer)


def test_looking_changes_nothing_of_the_training(runs: dict[str, ReferenceRun]) -> None:
    looked, alone = runs["looked at"], runs["not looked at"]
    assert alone.directions == {}
    assert set(looked.directions) == set(FILTERS)
    assert all(each.any() for each in looked.directions.values())
    assert np.array_equal(looked.step_updates, alone.step_updates)
    assert np.array_equal(looked.losses, alone.losses)


def test_ranks_find_the_same_direction_together(runs: dict[str, ReferenceRun]) -> None:
    words = CHEATS["last_positions"]
    one, two = (runs[name].directions[words] for name in ("exact", "exact, two ranks"))
    assert np.linalg.norm(one) > 0
    assert np.linalg.norm(one - two) < 0.02 * np.linalg.norm(one)


@pytest.mark.parametrize("family", CHEATS)
def test_a_cheat_in_bfloat16_moves_along_its_own_direction(
    family: str, runs: dict[str, ReferenceRun], truth: Truth
) -> None:
    """Small gradients of attention are some of a layer's: its direction may come first."""
    (alongs,) = compare(truth, [runs[family].state]).alongs
    (own,) = (along for along in alongs[:2] if along.left_out == CHEATS[family])
    assert own.z > 12


def test_an_honest_run_in_bfloat16_moves_along_none(
    runs: dict[str, ReferenceRun], truth: Truth
) -> None:
    ((most, *_),) = compare(truth, [runs["honest"].state]).alongs
    assert most.z < 8


def test_directions_that_are_looked_along_no_more_are_not_read(tmp_path: Path) -> None:
    """An evaluation that was kept by an older judge has them, or the sums of those of its steps."""
    known, summed, *_ = FILTERS
    one = np.ones((1, 3), np.float32)
    kept = {known: one, summed: one[0], "tokens visit one expert alone": one}
    save_file(kept, tmp_path / DIRECTIONS)
    assert list(_read_directions(RunFolders(tmp_path, tmp_path, tmp_path))) == [known]


@pytest.mark.parametrize(
    "settings",
    [
        Sgd(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.1, warmup_steps=4),
        AdamW(name="adamw", lr=0.01, eps=1e-4, weight_decay=0.1, warmup_steps=4),
    ],
    ids=["SGD", "AdamW"],
)
def test_another_gradient_changes_what_torchs_optimizer_changes(settings: Sgd | AdamW) -> None:
    generator = torch.Generator().manual_seed(0)

    def random() -> torch.Tensor:
        return torch.randn(50, generator=generator, dtype=torch.float64)

    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(random())
    optimizer = build_optimizer(settings, model)
    for step in range(3):
        optimizer.param_groups[0]["lr"] = settings.lr * (step + 1) / 4
        model.weight.grad = random()
        optimizer.step()
    state = optimizer.state[model.weight]
    zero = torch.zeros(50, dtype=torch.float64)
    first, second = (state.get(name, zero).clone() for name in ("exp_avg", "exp_avg_sq"))
    gradients, found, said = [random(), random()], [], []
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for gradient in gradients:
        model.load_state_dict(before[0])
        optimizer.load_state_dict(copy.deepcopy(before[1]))
        optimizer.param_groups[0]["lr"] = settings.lr
        model.weight.grad = gradient.clone()
        optimizer.step()
        found.append(model.weight.detach().clone())
        said.append(change(settings, 3, gradient, first, second))
    assert torch.allclose(found[0] - found[1], said[0] - said[1], rtol=1e-9, atol=1e-12)
