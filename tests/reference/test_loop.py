"""The trusted loop: its variants agree, and its record is that of its own training.

Its ranks are forked (`forked_ranks.py`). Every accepted evaluation in `test_evaluation.py` has launched
it in a real sandbox, and `make test-all` does it here too.
"""

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.benchmark.challenge import Challenge, draw
from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.problem import AdamW, Sgd
from harness.benchmark.snapshot import Snapshot
from harness.comparison import Truth, compare
from harness.errors import Code, JudgeError
from harness.reference.launch import Asked, run_reference
from harness.reference.outcome import ReferenceRun
from harness.reference.step import build_optimizer, round_state
from harness.reference.task import Variant
from harness.sandbox import Sandbox, choose
from harness.tensors.stored import trusted_state
from harness.verification import secret_coordinates
from harness.verify.attribution import Coordinates, gather
from tests.forked_ranks import ForkedRanks

pytest_plugins = ("tests.judging",)

BASE = Variant(world_size=1, micro_batches=1, compute_dtype="float32")
OTHER = Variant(world_size=2, micro_batches=2, compute_dtype="float32", attention="eager")
REDUCED = BASE.model_copy(update={"world_size": 2, "reduce_dtype": "bfloat16"})


@pytest.fixture(scope="module")
def hparams(loaded: LoadedHparams) -> Hparams:
    raw = loaded.hparams.model_dump()
    raw |= {"sequence_length": 32, "steps": {"min": 3, "max": 3}}
    return Hparams.model_validate(raw)


@pytest.fixture(scope="module")
def challenges(snapshot: Snapshot, hparams: Hparams) -> list[Challenge]:
    return [draw(snapshot.tokens(), hparams) for _ in range(2)]


@pytest.fixture(scope="module")
def coordinates(snapshot: Snapshot, hparams: Hparams) -> Coordinates:
    return secret_coordinates(snapshot.layout, hparams)


@pytest.fixture(scope="module")
def folder(launcher: Sandbox) -> Iterator[Path]:
    """One for each launcher."""
    path = Path(tempfile.mkdtemp(prefix="trainjudge-test-"))
    path.chmod(0o711)  # the reference is another user
    yield path
    shutil.rmtree(path)


@pytest.fixture(
    scope="module",
    params=["forked", pytest.param("sandboxed", marks=pytest.mark.slow)],
)
def launcher(request: pytest.FixtureRequest, forked_ranks: ForkedRanks) -> Sandbox:
    return forked_ranks if request.param == "forked" else choose("auto")


@pytest.fixture(scope="module")
def launched(
    snapshot: Snapshot,
    hparams: Hparams,
    challenges: list[Challenge],
    coordinates: Coordinates,
    folder: Path,
    launcher: Sandbox,
) -> dict[str, list[ReferenceRun]]:
    return {
        name: run_reference(
            hparams, snapshot, challenges, coordinates, variant, launcher, "cpu", folder / name
        )
        for name, variant in {"base": BASE, "other": OTHER, "reduced": REDUCED}.items()
    }


@pytest.fixture(scope="module")
def truths(
    launched: dict[str, list[ReferenceRun]],
    challenges: list[Challenge],
    snapshot: Snapshot,
    hparams: Hparams,
) -> list[Truth]:
    """The base's run of each challenge."""
    initial = trusted_state(snapshot.state_dir, snapshot.layout)
    return [
        Truth(initial, base, snapshot.layout, challenge, hparams.optimizer)
        for challenge, base in zip(challenges, launched["base"], strict=True)
    ]


def test_sharding_micro_batches_and_attention_change_nothing_but_rounding(
    launched: dict[str, list[ReferenceRun]], truths: list[Truth]
) -> None:
    for truth, other in zip(truths, launched["other"], strict=True):
        seen = compare(truth, [other.state])
        (comparison,), (attribution,) = seen.comparisons, seen.attributions
        assert 0 < comparison.update_error < 1e-3
        assert attribution.weights == pytest.approx([1.0] * 3, abs=1e-2)
        assert other.losses == pytest.approx(truth.reference.losses, abs=1e-4)


def test_reductions_in_bfloat16_are_less_exact(
    launched: dict[str, list[ReferenceRun]], truths: list[Truth]
) -> None:
    for truth, other in zip(truths, launched["reduced"], strict=True):
        (comparison,) = compare(truth, [other.state]).comparisons
        # Rounding moves a value by 2**-9 of itself; after a step near ties of the router fall otherwise.
        assert 5e-4 < comparison.update_error < 0.1


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_state_of_an_optimizer_is_rounded_and_its_count_of_steps_is_not(name: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 40)
    adamw, sgd = AdamW(name="adamw", lr=0.1), Sgd(name="sgd", lr=0.1, momentum=0.9)
    optimizer = build_optimizer(adamw if name == "adamw" else sgd, model)
    model(torch.randn(8, 40)).square().sum().backward()
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()["state"][0])
    round_state(optimizer, torch.float32)
    assert all(torch.equal(optimizer.state_dict()["state"][0][key], before[key]) for key in before)
    round_state(optimizer, torch.bfloat16)
    after = optimizer.state_dict()["state"][0]
    for key in before.keys() - {"step"}:
        assert torch.equal(after[key], before[key].bfloat16().float())
        assert not torch.equal(after[key], before[key])
    assert after.get("step", 1) == 1


def test_the_recorded_updates_add_up_to_the_final_state(
    launched: dict[str, list[ReferenceRun]], coordinates: Coordinates
) -> None:
    for run in (*launched["base"], *launched["other"]):
        final = gather(run.state, coordinates)
        assert run.initial + run.step_updates.sum(axis=0) == pytest.approx(final, abs=1e-7)
        assert (np.abs(run.step_updates).max(axis=1) > 0).all()


def test_losses_are_of_every_row_at_every_step(
    launched: dict[str, list[ReferenceRun]], hparams: Hparams, snapshot: Snapshot
) -> None:
    for run in launched["base"]:
        assert run.losses.shape == (3, hparams.global_batch)
        assert run.losses[0] == pytest.approx(np.log(snapshot.manifest.vocab_size), abs=1.5)


def test_each_challenge_is_trained_from_the_same_initial_weights(
    launched: dict[str, list[ReferenceRun]],
) -> None:
    first, second = launched["base"]
    assert np.array_equal(first.initial, second.initial)
    assert not np.array_equal(first.step_updates, second.step_updates)


def test_token_losses_are_those_of_the_final_weights_of_whoever_trained_them(
    snapshot: Snapshot,
    hparams: Hparams,
    challenges: list[Challenge],
    coordinates: Coordinates,
    folder: Path,
    launcher: Sandbox,
) -> None:
    """Submitted are the initial weights, cut as the snapshot is, and the reference's own.

    On two ranks, which share the rows and hold halves of the tensors.
    """
    rows = [np.array([1, 5, 23]), np.array([0, 7, 8, 22, 9])]
    initial = trusted_state(snapshot.state_dir, snapshot.layout)

    def run(name: str, variant: Variant, asked: Asked) -> list[ReferenceRun]:
        return run_reference(
            hparams,
            snapshot,
            challenges,
            coordinates,
            variant,
            launcher,
            "cpu",
            folder / name,
            asked,
        )

    alone = run("alone", BASE, Asked(rows))
    states = [(initial, alone[0].state), (alone[1].state,)]
    both = run("both", OTHER, Asked(rows, states))
    for first, second, count in zip(alone, both, (3, 5), strict=True):
        assert first.token_losses is not None and second.token_losses is not None
        assert first.token_losses.submitted == ()
        assert first.token_losses.reference.shape == (count, 31)
        assert second.token_losses.reference == pytest.approx(
            first.token_losses.reference, abs=1e-4
        )
        margins = first.token_losses.margins
        assert margins is not None and margins.shape == (count, 31) and margins.min() > 0
        assert second.token_losses.margins == pytest.approx(margins, abs=1e-3)
        own = second.token_losses.submitted[-1]
        assert own == pytest.approx(first.token_losses.reference, abs=1e-5)
    before = both[0].token_losses
    assert before is not None
    untrained = before.submitted[0]
    # Rows 1 and 5 were served in the first step, from the initial weights.
    assert untrained.mean(axis=1)[:2] == pytest.approx(both[0].losses[0][[1, 5]], abs=1e-4)
    assert untrained.mean() > before.reference.mean() + 0.01


def test_a_reference_that_fails_is_our_fault_and_says_why(
    snapshot: Snapshot,
    hparams: Hparams,
    challenges: list[Challenge],
    coordinates: Coordinates,
    folder: Path,
    launcher: Sandbox,
) -> None:
    broken = BASE.model_copy(update={"attention": "no-such-kernel"})
    with pytest.raises(JudgeError) as caught:
        run_reference(
            hparams,
            snapshot,
            challenges,
            coordinates,
            broken,
            launcher,
            "cpu",
            folder / "broken",
        )
    assert caught.value.code is Code.REFERENCE_FAILED
    assert "no-such-kernel" in caught.value.detail
