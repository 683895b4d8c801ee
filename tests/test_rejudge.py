"""A kept evaluation is judged again from its files: by today's tolerances, without any training."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.preload import preload
from harness.errors import Code, InputError, Verdict
from harness.evaluate import Options, evaluate
from harness.kept import write_result
from harness.phases import Phases, silent
from harness.rejudge import rejudge
from harness.result import EvaluationResult
from tests.forked_ranks import ForkedRanks
from tests.project import ROOT

pytest_plugins = ("tests.judging",)


@pytest.fixture(scope="module")
def kept(
    quick: LoadedHparams, forked_ranks: ForkedRanks, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An accepted evaluation of two runs."""
    return keep(ROOT / "submissions" / "train_ep.py", quick, forked_ranks, tmp_path_factory)


@pytest.fixture(scope="module")
def kept_wrong(
    quick: LoadedHparams, forked_ranks: ForkedRanks, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One that was rejected for its numbers."""
    file = ROOT / "tests" / "submissions" / "scaled_lr.py"
    return keep(file, quick, forked_ranks, tmp_path_factory)


def keep(
    file: Path,
    benchmark: LoadedHparams,
    ranks: ForkedRanks,
    folders: pytest.TempPathFactory,
) -> Path:
    folder = folders.mktemp("kept") / "evaluation"
    world_size = 2 if file.stem == "train_ep" else 1
    result = evaluate(
        file,
        benchmark,
        preload(benchmark),
        ranks,
        Options(world_size=world_size, runs=2, keep=folder),
        Phases(lambda name, detail: None),
    )
    write_result(folder, result)
    return folder


def with_tolerance(benchmark: LoadedHparams, folder: Path, **tolerances: float) -> LoadedHparams:
    raw: dict[str, Any] = json.loads(benchmark.path.read_bytes())
    raw["verify"]["tolerances"] |= tolerances
    path = folder / "hparams.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return load(path)


def result_in(folder: Path) -> EvaluationResult:
    return EvaluationResult.model_validate_json((folder / "result.json").read_bytes())


def test_judged_again_by_the_same_tolerances_it_is_the_same_document(
    kept: Path, quick: LoadedHparams
) -> None:
    before = result_in(kept)
    assert before.verdict is Verdict.ACCEPTED
    assert rejudge(kept, quick, preload(quick), silent) == before


def test_a_tighter_tolerance_rejects_what_was_accepted(
    kept: Path, quick: LoadedHparams, tmp_path: Path
) -> None:
    tight = with_tolerance(quick, tmp_path, update_error=1e-12)
    now = rejudge(kept, tight, preload(tight), silent)
    assert (now.verdict, now.code, now.score) == (Verdict.REJECTED, Code.UPDATE_MISMATCH, None)
    assert now.benchmark.hparams_sha256 == tight.sha256


def test_wider_tolerances_accept_and_score_what_was_rejected(
    kept_wrong: Path, quick: LoadedHparams, tmp_path: Path
) -> None:
    before = result_in(kept_wrong)
    assert (before.verdict, before.score) == (Verdict.REJECTED, None)
    names = [metric.name for metric in before.runs[0].metrics]
    wide = with_tolerance(quick, tmp_path, **dict.fromkeys(names, 0.9) | {"token_group_shift": 1e3})
    now = rejudge(kept_wrong, wide, preload(wide), silent)
    assert now.verdict is Verdict.ACCEPTED
    assert now.score is not None and now.score.peak_tflops == 0.1
    assert [run.seconds for run in now.runs] == [run.seconds for run in before.runs]


def test_files_that_have_changed_since_are_held_against_nobody(
    kept: Path, quick: LoadedHparams, tmp_path: Path
) -> None:
    copy = tmp_path / "kept"
    shutil.copytree(kept, copy, ignore=shutil.ignore_patterns("sockets"))
    shard = next(path for path in (copy / "outbox").rglob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="have changed since"):
        rejudge(copy, quick, preload(quick), silent)


def test_a_folder_without_an_evaluation_is_refused(quick: LoadedHparams, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no evaluation"):
        rejudge(tmp_path, quick, preload(quick), silent)


def test_a_reference_that_another_version_has_kept_elsewhere_is_said_to_be_missing(
    kept: Path, quick: LoadedHparams, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(kept, copy, ignore=shutil.ignore_patterns("sockets"))
    shutil.rmtree(copy / "reference" / "asked")
    with pytest.raises(InputError, match="not where this version keeps it: No such") as caught:
        rejudge(copy, quick, preload(quick), silent)
    assert caught.value.code is Code.BAD_ARGUMENT
