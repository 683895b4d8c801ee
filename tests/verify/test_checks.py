"""Cheats and honest noise on a synthetic training: each cheat is rejected by a finding that names it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.benchmark.rules import Tolerances
from harness.errors import Code, JudgeError
from harness.protocol.messages import Done
from harness.submission.strategy import Strategy
from harness.tensors.boxes import TensorKind, TensorSpec
from harness.tensors.stored import trusted_state
from harness.verify import checks
from harness.verify.attribution import Attribution, attribute, draw_coordinates, gather
from harness.verify.checks import (
    Finding,
    RunEvidence,
    Severity,
    judge_losses,
    judge_run,
    measure_run,
    note_tokens,
)
from harness.verify.compare import compare_states
from harness.verify.figures import StateComparison
from harness.verify.metrics import RunMetrics, metric_values
from harness.verify.token_losses import TokenShift
from tests.build_states import Array, whole

STEPS, BATCH, SEQUENCE = 6, 8, 16
GATE = "model.layers.2.mlp.gate.weight"
EXPERTS = "model.layers.2.mlp.experts.down_proj"
EMBEDDING = "model.embed_tokens.weight"
LAYOUT = {
    EMBEDDING: TensorSpec((64, 16), "float32", TensorKind.EMBEDDING),
    EXPERTS: TensorSpec((4, 16, 12), "float32", TensorKind.EXPERTS),
    GATE: TensorSpec((4, 16), "float32"),
    "lm_head.weight": TensorSpec((64, 16), "float32"),
}
TOLERANCES = Tolerances(
    loss=1e-3,
    update_error=0.05,
    tensor_update_error=0.1,
    slice_update_error=0.3,
    norm_ratio=3e-3,
    tensor_norm_ratio=0.02,
    step_weight=0.02,
)
ROWS = np.linspace(6.0, 7.0, BATCH)
STRATEGY = Strategy(dp_size=2, tp_size=2)
Weights = dict[str, Array]


class Training:
    """Initial weights and the reference's updates; float64 [steps, *shape] for each tensor."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.initial: Weights = {n: rng.standard_normal(s.shape) for n, s in LAYOUT.items()}
        # The gate moves a hundred times less than the rest: a global norm does not see it.
        self.updates: Weights = {
            n: (1e-4 if n == GATE else 1e-2) * rng.standard_normal((STEPS, *s.shape))
            for n, s in LAYOUT.items()
        }

    def final(self, weights: list[float] | None = None) -> Weights:
        factors = np.array(weights or [1.0] * STEPS)
        return {n: w + np.tensordot(factors, self.updates[n], 1) for n, w in self.initial.items()}

    def noisy(self) -> Weights:
        rng = np.random.default_rng(1)
        return {
            n: self.initial[n] + (w - self.initial[n]) * (1 + 3e-3 * rng.standard_normal(w.shape))
            for n, w in self.final().items()
        }


@pytest.fixture(scope="module")
def training() -> Training:
    return Training()


def evidence(
    training: Training, *versions: Weights, claims: list[Done] | None = None
) -> RunEvidence:
    initial, reference = (whole(w, LAYOUT) for w in (training.initial, training.final()))
    states = [whole(weights, LAYOUT) for weights in versions]
    coordinates = draw_coordinates(LAYOUT, 1_000, seed=0)
    steps = np.stack(
        [
            np.concatenate([training.updates[n][k].flatten()[coordinates[n]] for n in coordinates])
            for k in range(STEPS)
        ]
    )
    start = gather(initial, coordinates)
    return RunEvidence(
        claims=claims or [done(ROWS.mean())] * STRATEGY.world_size,
        strategy=STRATEGY,
        row_losses=ROWS,
        sequence_length=SEQUENCE,
        steps=STEPS,
        comparisons=[compare_states(initial, reference, state, LAYOUT) for state in states],
        attributions=[attribute(steps, gather(state, coordinates) - start) for state in states],
    )


def done(loss: float | None, tokens: int | None = None) -> Done:
    return Done(run=0, final_loss=None if loss is None else float(loss), total_tokens=tokens)


def rejections(findings: list[Finding]) -> dict[str, Finding]:
    return {f.check: f for f in findings if f.severity is Severity.REJECTS}


def test_honest_noise_is_accepted_without_a_word(training: Training) -> None:
    assert judge_run(evidence(training, training.noisy()), TOLERANCES) == []


def swap_experts(weights: Weights, _: Training) -> None:
    weights[EXPERTS][[1, 3]] = weights[EXPERTS][[3, 1]]


def freeze_expert(weights: Weights, training: Training) -> None:
    weights[EXPERTS][2] = training.initial[EXPERTS][2]


def freeze_rare_row(weights: Weights, training: Training) -> None:
    weights[EMBEDDING][5] = training.initial[EMBEDDING][5]


def freeze_row(weights: Weights, training: Training) -> None:
    weights[EMBEDDING][41] = training.initial[EMBEDDING][41]


def freeze_gate(weights: Weights, training: Training) -> None:
    weights[GATE] = training.initial[GATE]


def scale_gate(weights: Weights, training: Training) -> None:
    weights[GATE] = training.initial[GATE] + 4 * (weights[GATE] - training.initial[GATE])


def hide_nan(weights: Weights, _: Training) -> None:
    weights[EXPERTS][3, 15, 11] = math.nan


@pytest.mark.parametrize(
    ("cheat", "check", "tensor", "said"),
    [
        (freeze_gate, "tensor_update_error", GATE, f"{GATE}: update error 1 (allowed 0.1, 10x); "
         "it did not move (norm ratio 0.00): is it trained?"),
        (scale_gate, "tensor_update_error", GATE, "it moved 4 times as far, in the right direction"),
        (freeze_expert, "slice_update_error", EXPERTS, f"{EXPERTS}: expert 2: update error"),
        (swap_experts, "slice_update_error", EXPERTS, "(2 of 4 experts are off: 1, 3)"),
        (freeze_row, "slice_update_error", EMBEDDING, f"{EMBEDDING}: row 41: update error"),
        (freeze_rare_row, "still", EMBEDDING, "rows without their update: 5"),
        (hide_nan, "finite", EXPERTS, f"contains 1 non-finite element (NaN or infinity) in {EXPERTS}"),
    ],
)  # fmt: skip
def test_a_part_that_is_wrong_is_named(
    training: Training,
    cheat: Callable[[Weights, Training], None],
    check: str,
    tensor: str,
    said: str,
) -> None:
    weights = training.noisy()
    cheat(weights, training)
    found = rejections(judge_run(evidence(training, weights), TOLERANCES))
    assert said in found[check].message
    measured, allowed = found[check].measured, found[check].allowed
    assert measured is not None and allowed is not None and measured > allowed
    assert found[check].worst[0].tensor == tensor


def test_nan_is_reported_once_and_not_drowned_in_infinite_errors(training: Training) -> None:
    weights = training.noisy()
    hide_nan(weights, training)
    run = evidence(training, weights)
    assert [f.check for f in judge_run(run, TOLERANCES)] == ["finite"]
    assert judge_run(run, TOLERANCES)[0].code is Code.STATE_INVALID
    assert measure_run(run).update_error == math.inf


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ([1, 1, 1, 1, 1, 0], "step 6 of 6 is missing (weight 0.00)"),
        ([0.9] * 6, "as if the learning rate were about 0.90 times the benchmark's"),
        ([1, 1, 2, 1, 1, 1], "step 3 of 6 counts twice (weight 2.00)"),
        ([1e-9] * 6, "none of the 6 steps"),
    ],
)
def test_steps_that_were_not_done_as_asked_are_named(
    training: Training, factors: list[float], said: str
) -> None:
    found = rejections(judge_run(evidence(training, training.final(factors)), TOLERANCES))
    assert said in found["step_weight"].message
    assert {"update_error", "tensor_update_error", "norm_ratio"} <= set(found)
    assert all(f.code is Code.UPDATE_MISMATCH for f in found.values())


def test_the_worst_version_of_replicas_is_judged(training: Training) -> None:
    cheated = training.noisy()
    freeze_row(cheated, training)
    for versions in ((training.noisy(), cheated), (cheated, training.noisy())):
        findings = judge_run(evidence(training, *versions), TOLERANCES)
        assert "row 41" in rejections(findings)["slice_update_error"].message
        assert any(f.check == "versions" for f in findings)


def test_a_version_that_is_worst_in_one_slice_only_is_not_hidden_by_another(
    training: Training,
) -> None:
    off_by_a_little = training.noisy()
    off_by_a_little[EMBEDDING] += 0.05 * training.updates[EMBEDDING].sum(axis=0)
    frozen_row = training.noisy()
    freeze_rare_row(frozen_row, training)
    found = rejections(judge_run(evidence(training, off_by_a_little, frozen_row), TOLERANCES))
    assert "still" in found


def test_a_tensor_that_the_reference_does_not_move_is_noted_or_rejected() -> None:
    training = Training()
    training.updates[GATE][:] = 0
    honest = judge_run(evidence(training, training.noisy()), TOLERANCES)
    assert [(f.check, f.severity) for f in honest] == [("unmoved", Severity.NOTE)]
    assert GATE in honest[0].message
    moved = training.noisy()
    moved[GATE] = moved[GATE] + 1e-3
    found = rejections(judge_run(evidence(training, moved), TOLERANCES))
    assert "although the reference" in found["tensor_update_error"].message


def test_inconclusive_steps_are_noted_and_the_other_checks_stand() -> None:
    training = Training()
    for updates in training.updates.values():
        updates[3] = updates[2]
    notes = judge_run(evidence(training, training.noisy()), TOLERANCES)
    assert [(f.check, f.severity) for f in notes] == [("step_weight", Severity.NOTE)]
    short = judge_run(evidence(training, training.final([1, 1, 1, 0, 1, 1])), TOLERANCES)
    assert "update_error" in rejections(short)


def test_metrics_and_tolerances_are_the_same_fields_and_infinity_survives_json() -> None:
    assert set(RunMetrics.model_fields) == set(Tolerances.model_fields)
    training = Training()
    weights = training.noisy()
    hide_nan(weights, training)
    metrics = measure_run(evidence(training, weights))
    assert RunMetrics.model_validate_json(metrics.model_dump_json()) == metrics


def test_weights_that_a_submission_made_undeterminable_pass_no_tolerance(
    training: Training,
) -> None:
    run = evidence(training, training.noisy())
    lost = Attribution((math.nan,) * STEPS, condition=1.0)
    for attributions in ([lost], [run.attributions[0], lost]):
        comparisons = [run.comparisons[0]] * len(attributions)
        metrics = metric_values(comparisons, attributions, 0.0)
        assert metrics.step_weight == math.inf


# --- the metrics decide, the findings explain ------------------------------------------------------


def with_comparisons(run: RunEvidence, *comparisons: StateComparison) -> RunEvidence:
    attributions = [run.attributions[0]] * len(comparisons)
    return replace(run, comparisons=comparisons, attributions=attributions)


def test_no_metric_is_over_its_tolerance_without_a_finding(training: Training) -> None:
    """A figure that no check names (here: NaN, behind which an honest version comes) rejects."""
    run = evidence(training, training.noisy())
    good = run.comparisons[0]
    gate = good.tensors[2]
    lost = replace(good, tensors=(replace(gate, update_error=math.nan, norm_ratio=math.nan),))
    for order in ((good, lost), (lost, good)):
        found = rejections(judge_run(with_comparisons(run, *order), TOLERANCES))
        assert set(found) == {"tensor_update_error", "tensor_norm_ratio"}
        for check, allowed in (("tensor_update_error", 0.1), ("tensor_norm_ratio", 0.02)):
            assert found[check].code is Code.UPDATE_MISMATCH
            assert (found[check].measured, found[check].allowed) == (math.inf, allowed)


def test_an_excess_that_no_check_explains_is_rejected_all_the_same(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that forgets to speak lets nothing pass, and makes nothing up."""
    monkeypatch.setattr(checks, "judge_update", lambda *_: [])
    with_tokens = TOLERANCES.model_copy(update={"token_loss_shift": 0.1})  # and none were compared
    skipped = training.final([1, 1, 1, 0, 1, 1])
    over = rejections(judge_run(evidence(training, skipped), with_tokens))
    assert {"update_error", "tensor_update_error", "norm_ratio", "step_weight"} <= set(over)
    for check, finding in over.items():
        assert finding.code is Code.UPDATE_MISMATCH
        assert finding.message == f"{check} is over its tolerance"
        assert finding.measured is not None and finding.allowed is not None
        assert finding.measured > finding.allowed == getattr(TOLERANCES, check)

    alike = Training()
    for updates in alike.updates.values():
        updates[3] = updates[2]  # the weights of the steps are not known
    for honest in (training, alike):
        assert not rejections(judge_run(evidence(honest, honest.noisy()), with_tokens))


def test_losses_of_tokens_are_judged_unless_there_are_none_to_be_had(training: Training) -> None:
    allowed = TOLERANCES.model_copy(update={"token_loss_shift": 0.1})
    run = replace(evidence(training, training.noisy()), shifts=[TokenShift(0.5, ())])
    (found,) = judge_run(run, allowed)
    assert found.check == "token_loss_shift" and "is over its tolerance" not in found.message

    weights = training.noisy()
    hide_nan(weights, training)
    claims = [done(9.0)] * STRATEGY.world_size
    broken = evidence(training, weights, claims=claims)
    broken = replace(broken, shifts=[TokenShift(math.inf, ())])
    assert {f.check for f in judge_run(broken, allowed)} == {"loss", "finite"}


def test_what_a_check_has_said_is_not_said_again(training: Training) -> None:
    weights = training.noisy()
    for spoil in (freeze_gate, freeze_row):
        spoil(weights, training)
    checks = [f.check for f in judge_run(evidence(training, weights), TOLERANCES)]
    assert len(checks) == len(set(checks))
    assert {"tensor_update_error", "tensor_norm_ratio", "slice_update_error"} <= set(checks)


def test_findings_of_what_ranks_say_come_before_those_of_the_weights(training: Training) -> None:
    weights = training.noisy()
    freeze_gate(weights, training)
    claims = [done(ALL + 1.0, 3), *[done(ALL)] * 3]
    found = judge_run(evidence(training, weights, claims=claims), TOLERANCES)
    assert [f.check for f in found] == [
        "loss", "tokens", "tensor_update_error", "tensor_norm_ratio",
    ]  # fmt: skip


def test_a_run_is_measured_whatever_the_tolerances(training: Training) -> None:
    claims = [done(ALL + 0.5), done(ALL - 0.75), done(None), done(ALL)]
    metrics = measure_run(evidence(training, training.noisy(), claims=claims))
    assert metrics.loss == pytest.approx(0.5)  # rank 1's own rows are 0.25 below the mean of all
    assert 0.001 < metrics.update_error < 0.005


OWN = [float(ROWS[:4].mean()), float(ROWS[4:].mean())]
ALL = float(ROWS.mean())


@pytest.mark.parametrize(
    ("losses", "strategy", "accepted"),
    [
        ([ALL, ALL, ALL, ALL], STRATEGY, True),
        ([OWN[0], OWN[0], OWN[1], OWN[1]], STRATEGY, True),
        ([OWN[0], None, None, None], STRATEGY, True),
        ([OWN[0] + 5e-4, None, None, None], STRATEGY, True),
        ([OWN[1], None, None, None], STRATEGY, False),  # another rank's rows
        ([ALL, None, OWN[0], None], STRATEGY, False),
        ([None, ALL, ALL, ALL], STRATEGY, False),
        ([None] * 4, STRATEGY, False),
        ([ALL, None, math.nan, None], STRATEGY, False),
        ([math.inf, None, None, None], STRATEGY, False),
        ([0.0, None, None, None], STRATEGY, False),
        ([None, None, None, ALL], Strategy(dp_size=2, pp_size=2), True),
        ([None, OWN[0], None, OWN[1]], Strategy(dp_size=2, pp_size=2), True),
        ([None] * 4, Strategy(dp_size=2, pp_size=2), False),
        ([0.0, OWN[0], 0.0, OWN[1]], Strategy(dp_size=2, pp_size=2), True),  # stages without a loss
        ([0.0] * 4, Strategy(dp_size=2, pp_size=2), False),
    ],
)
def test_losses_are_those_of_the_ranks_rows_or_of_all(
    losses: list[float | None], strategy: Strategy, accepted: bool
) -> None:
    difference, findings = judge_losses([done(loss) for loss in losses], ROWS, strategy, 1e-3)
    assert (findings == []) == accepted
    assert (difference <= 1e-3) == accepted
    assert all(f.code is Code.LOSS_MISMATCH for f in findings)


def test_a_loss_of_zero_is_a_loss_where_there_is_no_pipeline() -> None:
    strategy = Strategy(dp_size=2)
    difference, (found,) = judge_losses([done(6.5), done(0.0)], np.full(4, 6.5), strategy, 0.25)
    assert (difference, found.measured) == (6.5, 6.5)


@pytest.mark.parametrize(("loss", "accepted"), [(6.75, True), (6.25, True), (6.7501, False)])
def test_a_loss_exactly_at_its_tolerance_is_accepted(loss: float, accepted: bool) -> None:
    difference, findings = judge_losses([done(loss)], np.full(4, 6.5), Strategy(), 0.25)
    assert difference == abs(loss - 6.5)
    assert (findings == []) == accepted


def test_the_worst_rank_is_measured_and_every_wrong_one_is_told() -> None:
    losses = [ALL + 0.25, ALL, ALL + 0.5, None]
    difference, findings = judge_losses([done(loss) for loss in losses], ROWS, STRATEGY, 0.01)
    # Ranks 0 and 1 have the rows of 6.0 to 6.43, ranks 2 and 3 those of 6.57 to 7.0: 6.2143, 6.7857.
    assert [f.measured for f in findings] == pytest.approx([0.25, 7.0 - 6.785714], rel=1e-5)
    assert difference == pytest.approx(0.25)
    assert [f.message.split(" reports")[0] for f in findings] == ["rank 0", "rank 2"]
    assert {f.allowed for f in findings} == {0.01}


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([None] * 4, "no rank reports a final_loss"),
        ([None, ALL, None, None], "rank 0 reports no final_loss"),
    ],
)
def test_a_missing_loss_is_told_to_its_author(losses: list[float | None], said: str) -> None:
    difference, findings = judge_losses([done(loss) for loss in losses], ROWS, STRATEGY, 1e-3)
    assert difference == math.inf
    assert [(f.check, f.measured, f.allowed) for f in findings] == [("loss", None, 1e-3)]
    assert findings[0].message == f"{said}: return the loss of the last step"


def test_a_wrong_loss_is_told_with_both_reference_values() -> None:
    _, findings = judge_losses([done(6.6), *[done(None)] * 3], ROWS, STRATEGY, 1e-3)
    assert "rank 0 reports a loss of 6.6" in findings[0].message
    assert f"{OWN[0]:.6g}" in findings[0].message and f"{ALL:.6g}" in findings[0].message


@pytest.mark.parametrize(
    ("tokens", "accepted"),
    [
        (None, True),
        (BATCH * SEQUENCE * STEPS, True),
        (BATCH // 2 * SEQUENCE * STEPS, True),
        (BATCH * (SEQUENCE - 1) * STEPS, False),
        (BATCH * SEQUENCE, False),
        (0, False),
        (-1, False),
    ],
)
def test_token_counts_are_compared(tokens: int | None, accepted: bool) -> None:
    findings = note_tokens([done(1.0, tokens)], STRATEGY, BATCH, SEQUENCE, STEPS)
    assert (findings == []) == accepted
    assert all(f.severity is Severity.NOTE for f in findings)  # nothing is computed from it


def test_a_wrong_token_count_is_told_with_the_right_ones_and_rejects_nothing() -> None:
    claims = [done(1.0, 768), done(1.0, 5), done(1.0), done(1.0, 384)]
    (finding,) = note_tokens(claims, STRATEGY, BATCH, SEQUENCE, STEPS)
    assert finding.check == "tokens" and finding.severity is Severity.NOTE
    assert finding.message == (
        "rank 1 reports 5 tokens; there were 384 (this rank's rows) or 768 (all rows): "
        "rows x sequence length 16 x 6 steps. It is not used"
    )
    claims = [done(1.0, 5), done(1.0, 6), done(1.0, 768), done(1.0, 7)]
    (finding,) = note_tokens(claims, STRATEGY, BATCH, SEQUENCE, STEPS)
    assert finding.message.startswith("rank 0 (and 2 other ranks) reports 5 tokens")
    (finding,) = note_tokens([done(1.0, 5)], Strategy(), BATCH, SEQUENCE, STEPS)
    assert "there were 768 (this rank's rows): rows" in finding.message


def test_trusted_states_are_read_from_whole_files_and_refused_with_a_hole(tmp_path: Path) -> None:
    training = Training()
    arrays = {n: w.astype(np.float32) for n, w in training.initial.items()}
    names = list(arrays)
    save_file({n: arrays[n] for n in names[:2]}, tmp_path / "a.safetensors")
    with pytest.raises(JudgeError, match="0 of 64 elements"):
        trusted_state(tmp_path, LAYOUT)
    save_file({n: arrays[n] for n in names[2:]}, tmp_path / "b.safetensors")
    state = trusted_state(tmp_path, LAYOUT)
    coordinates = draw_coordinates(LAYOUT, 500, seed=0)
    expected = np.concatenate([arrays[n].flatten()[i] for n, i in coordinates.items()])
    assert gather(state, coordinates).tolist() == expected.tolist()
    save_file({GATE: arrays[GATE]}, tmp_path / "c.safetensors")
    with pytest.raises(JudgeError, match="stored twice"):
        trusted_state(tmp_path, LAYOUT)
    with pytest.raises(JudgeError, match="no tensor of the benchmark"):
        trusted_state(tmp_path, {GATE: LAYOUT[GATE]})


def test_trusted_states_are_read_from_the_shards_of_several_ranks(tmp_path: Path) -> None:
    whole_gate = np.arange(64, dtype=np.float32).reshape(4, 16)
    layout = {GATE: LAYOUT[GATE]}
    files = []
    for rank, (low, high) in enumerate(((0, 3), (3, 4))):
        files.append(tmp_path / f"rank{rank}.safetensors")
        place = {"DCP_SHARDING_INFO": json.dumps({GATE: {"saved_offsets": [low, 0]}})}
        save_file({GATE: whole_gate[low:high]}, files[-1], place)
    coordinates = {GATE: np.arange(64)}
    state = trusted_state(files, layout)
    assert gather(state, coordinates).tolist() == whole_gate.flatten().tolist()
    with pytest.raises(JudgeError, match="48 of 64 elements"):
        trusted_state(files[:1], layout)
    files[0].write_bytes(b"not a safetensors file")
    with pytest.raises(JudgeError, match="cannot read"):
        trusted_state(files, layout)
