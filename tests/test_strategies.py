"""Every parallelism in every numeric regime is accepted, and the wrong versions people write are not.

The whole matrix is slow. `.ci/run` takes one of each family (`-m family`), `make test-all` everything.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams, load
from harness.errors import Code, Verdict
from harness.verify.findings import Severity
from harness.verify.token_checks import GROUP
from tests.judging import Judge, expected_of, explain, profile_file
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

#: Train files and the ranks that their strategy takes.
WORLDS = {
    "train_single": 1,
    "train_ddp": 2,
    "train_fsdp": 2,
    "train_fsdp1": 2,
    "train_compiled": 2,
    "train_fast": 2,
    "train_tp": 2,
    "train_tp_transformers": 2,
    "train_ep": 2,
    "train_ep_transformers": 2,
    "train_dp2ep": 2,
    "train_pp": 2,
    "train_cp": 2,
    "train_fsdp_tp": 4,
    "train_dp_ep": 4,
    "train_tp_ep": 4,
}
#: One of each family; those of the quick run are in test_evaluation.py.
FAMILIES = ("train_fsdp1", "train_tp", "train_fsdp_tp", "train_dp2ep", "train_pp", "train_cp")
REGIMES = (
    "",
    "embedded-bf16",
    "embedded-decay",
    "embedded-adamw",
    "embedded-adamw-bf16",
    "embedded-trained",
)
#: Wrong versions that may pass; docs/noise.md gives the reasons.
PASSES = {
    ("ddp_sum", "embedded-adamw"),
    ("ddp_sum", "embedded-adamw-bf16"),
    ("ddp_sum", "embedded-trained"),
    ("norms_without_weight_decay", "embedded-adamw-bf16"),
}
WRONG = sorted((ROOT / "tests" / "submissions" / "wrong").glob("*.py"))


def judged(judge: Judge, name: str, regime: str) -> None:
    file = ROOT / "submissions" / f"{name}.py"
    loaded = load(profile_file(regime))
    # As many runs as an evaluation makes: what they say together is judged too.
    result = judge(file, loaded, WORLDS[name], loaded.hparams.evaluation_runs)
    assert result.verdict is Verdict.ACCEPTED, explain(result)


def test_every_train_file_is_in_the_matrix() -> None:
    assert {file.stem for file in (ROOT / "submissions").glob("*.py")} == set(WORLDS)


@pytest.mark.slow
@pytest.mark.family
@pytest.mark.parametrize("name", FAMILIES)
def test_one_of_each_family_is_accepted(judge: Judge, name: str) -> None:
    judged(judge, name, "")


@pytest.mark.slow
@pytest.mark.family
def test_an_approximation_within_every_tolerance_is_found_by_two_runs_together(
    judge: Judge,
) -> None:
    file = ROOT / "tests" / "submissions" / "approximations" / "rounded_gradients.py"
    result = judge(file, load(profile_file("")), 1, runs=2)
    assert result.verdict is Verdict.REJECTED, explain(result)
    assert result.code is Code.UPDATE_MISMATCH, explain(result)
    found = [f.check for run in result.runs for f in run.findings if f.severity is Severity.REJECTS]
    # In a run of some tens a near tie of the router that flips shifts the losses of a few tokens, too.
    assert [check for check in found if check != GROUP] == ["strict_update_error"]


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", list(WORLDS))
def test_a_strategy_is_accepted_in_every_regime(
    forked_judge: Judge, name: str, regime: str
) -> None:
    judged(forked_judge, name, regime)


@pytest.mark.slow
def test_tensor_and_expert_parallelism_under_data_parallelism_is_accepted_on_eight_ranks(
    judge: Judge, tmp_path: Path
) -> None:
    source = (ROOT / "submissions" / "train_tp_ep.py").read_text()
    square, cube = '{"tp_size": 2, "ep_size": 2}', '{"dp_size": 2, "tp_size": 2, "ep_size": 2}'
    assert square in source
    file = tmp_path / "train_dp_tp_ep.py"
    file.write_text(source.replace(square, cube))
    result = judge(file, load(profile_file("embedded-adamw")), 8)  # with clipping over three meshes
    assert result.verdict is Verdict.ACCEPTED, explain(result)


def unexplained(loaded: LoadedHparams) -> LoadedHparams:
    """Without a search for the likely cause, which trains again and again."""
    verify = loaded.hparams.verify.model_copy(update={"explain_seconds": 0.0})
    return loaded.model_copy(
        update={"hparams": loaded.hparams.model_copy(update={"verify": verify})}
    )


def wrong_in_a_regime() -> Iterator[Any]:
    """Each wrong version in every regime in which it is wrong."""
    for file in WRONG:
        profile = expected_of(file).profile
        own = [regime for regime in REGIMES if regime.startswith(profile)] or [profile]
        for regime in own:
            if (file.stem, regime) not in PASSES:
                yield pytest.param(file, regime, id=f"{file.stem}-{regime or 'sgd'}")


@pytest.mark.slow
@pytest.mark.parametrize(("file", "regime"), list(wrong_in_a_regime()))
def test_a_wrong_version_is_rejected_and_named(
    forked_judge: Judge, file: Path, regime: str
) -> None:
    expected = expected_of(file)
    loaded = unexplained(load(profile_file(regime)))
    result = forked_judge(file, loaded, expected.world_size, loaded.hparams.evaluation_runs)
    assert result.verdict is Verdict.REJECTED, explain(result)
    found = [f for run in result.runs for f in run.findings if f.severity is Severity.REJECTS]
    codes = {result.code, *(finding.code for finding in found)}
    assert codes & set(expected.codes), explain(result)
