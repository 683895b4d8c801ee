"""hparams.json: a bad file gets one clear line per problem, and nothing is silently a default."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.benchmark.hparams import MAX_FILE_BYTES, Hparams, load
from harness.errors import Code, InputError
from tests.project import ROOT, Edit

COMMIT = "0" * 40


def problems(path: Path) -> list[str]:
    """The lines that a person gets for the file at `path`, without its name."""
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.code is Code.HPARAMS_INVALID and caught.value.exit_status == 2
    lines = caught.value.message.split("\n")
    assert all(str(path) in line for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def problems_of(edited: Edit, tmp_path: Path, changes: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError):
        edited(changes)
    return problems(tmp_path / "hparams.json")


@pytest.mark.parametrize("file", ["hparams.json", "profiles/qwen3-30b-a3b.json"])
def test_the_shipped_benchmarks_load(file: str) -> None:
    loaded = load(ROOT / file)
    assert loaded.path == ROOT / file
    for path in ("tokenizer", "file"):
        for section in (loaded.hparams.model, loaded.hparams.data):
            if section.source == "embedded" and hasattr(section, path):
                assert loaded.resolve(getattr(section, path)).is_file()


def test_the_production_profile_is_the_one_of_the_design() -> None:
    hparams = load(ROOT / "profiles" / "qwen3-30b-a3b.json").hparams
    assert hparams.model.source == "hub" and hparams.model.repo == "Qwen/Qwen3-30B-A3B"
    assert hparams.model.revision == "ad44e777bcd18fa416d9da3bd8f70d33ebb85d39"
    assert (hparams.sequence_length, hparams.world.size) == (1024, 4)
    assert (hparams.numerics.param_dtype, hparams.numerics.compute_dtype) == ("float32", "bfloat16")
    assert hparams.optimizer.lr == 0.1
    assert not hparams.calibrated


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limits.memory_bytes": 2 * 256 * 2**20 - 1}, "2 rank(s) of torch need 536,870,912"),
        ({"limits.startup_seconds": 9.9}, "limits.startup_seconds: Input should be greater"),
        ({"limits.log_bytes": 2**30 + 1}, "limits.log_bytes: Input should be less"),
        ({"mfu": {"peak_tflops": 1e-320}}, "mfu.peak_tflops: Input should be greater"),
        ({"mfu": {"peak_tflops": 1e7}}, "mfu.peak_tflops: Input should be less"),
    ],
)
def test_a_limit_under_which_nothing_could_run_is_told_before_anything_does(
    edited: Edit, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    (line,) = problems_of(edited, tmp_path, changes)
    assert said in line


def test_the_least_that_limits_may_be_is_taken(edited: Edit) -> None:
    edited(
        {
            "limits.memory_bytes": 2 * 256 * 2**20,
            "limits.startup_seconds": 10,
            "limits.log_bytes": 2**30,
            "mfu": {"peak_tflops": 1e-6},
        }
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nmae": "x"}, ["nmae: there is no such key"]),
        (
            {"verify.tolerances.update_eror": 0.1},
            ["verify.tolerances.update_eror: there is no such key"],
        ),
        ({"limits.memory_gb": 1}, ["limits.memory_gb: there is no such key"]),
        ({"schema_version": 2}, ["schema_version: Input should be 1"]),
        ({"steps": {"min": 9, "max": 5}}, ["steps: min 9 is above max 5"]),
        ({"steps": {"min": 5}}, ["steps.max: is missing"]),
        ({"model": {"repo": "a/b"}}, ['model: needs a "source": "embedded" or "hub" or "local"']),
        (
            {"model": {"source": "s3"}},
            ['model: its "source" must be "embedded" or "hub" or "local"'],
        ),
        ({"model": {"source": "local", "folder": "m"}}, ["model.sha256: is missing"]),
        (
            {"global_batch": 0, "name": "a b", "optimizer.lr": -1.0},
            [
                "name: String should match",
                "global_batch: Input should be greater than or equal to 1",
                "optimizer.lr: Input should be greater than 0",
            ],
        ),
        ({"global_batch": "8"}, ["global_batch: Input should be a valid integer"]),
        ({"global_batch": True}, ["global_batch: Input should be a valid integer"]),
        ({"global_batch": 8.5}, ["global_batch: Input should be a valid integer"]),
        ({"optimizer.name": "lion"}, ['optimizer: its "name" must be "sgd" or "adamw"']),
        ({"world.size": 0}, ["world.size: Input should be greater than or equal to 1"]),
        (
            {"reference": {"world_size": 3}},
            ["the file: the reference cannot deal global_batch 8 evenly to 3 ranks"],
        ),
        (
            {"reference": {"world_size": 2, "micro_batches": 8}},
            ["the file: the reference cannot deal global_batch 8 evenly to 2 ranks in 8"],
        ),
    ],
)
def test_each_problem_gets_its_line(
    edited: Edit, tmp_path: Path, changes: dict[str, Any], expected: list[str]
) -> None:
    lines = problems_of(edited, tmp_path, changes)
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    "revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper().replace("0", "A")]
)
@pytest.mark.parametrize("section", ["model", "data"])
def test_a_revision_is_a_full_commit(
    edited: Edit, tmp_path: Path, section: str, revision: str
) -> None:
    value = {"source": "hub", "repo": "a/b", "revision": revision}
    if section == "data":
        value["file"] = "x.txt"
    lines = problems_of(edited, tmp_path, {section: value})
    assert len(lines) == 1 and lines[0].startswith(f"{section}.revision: ")


def test_every_tolerance_must_be_given(edited: Edit, tmp_path: Path) -> None:
    lines = problems_of(edited, tmp_path, {"verify.tolerances": {}})
    assert len(lines) == 7 and all(line.endswith("is missing") for line in lines)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "0", "-0.1"])
def test_a_tolerance_cannot_switch_its_check_off(
    raw_hparams: dict[str, Any], tmp_path: Path, value: str
) -> None:
    raw_hparams["verify"]["tolerances"]["update_error"] = "HERE"
    path = tmp_path / "hparams.json"
    path.write_text(json.dumps(raw_hparams).replace('"HERE"', value), encoding="utf-8")
    assert problems(path)[0].startswith("verify.tolerances.update_error: ")


def test_a_key_given_twice_is_refused(raw_hparams: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "hparams.json"
    text = json.dumps(raw_hparams).replace('"loss":', '"loss": 9, "loss":')
    path.write_text(text, encoding="utf-8")
    assert problems(path) == ["the key loss is there twice in one object"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"schema_version: 1\n", "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8 text"),
        ('{"name": "é"}'.encode("latin-1"), "not UTF-8 text"),
        (b"[]", "the file: "),
        (b"null", "the file: "),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", ""),
        (b" " * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_hparams_file_gets_one_line(
    tmp_path: Path, content: bytes, line: str
) -> None:
    path = tmp_path / "hparams.json"
    path.write_bytes(content)
    lines = problems(path)
    assert len(lines) == 1 and lines[0].startswith(line) and len(lines[0]) < 300


def test_a_path_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert "directory" in problems(tmp_path)[0]
    assert "No such file" in problems(tmp_path / "none.json")[0]


def test_an_endless_file_is_not_read_to_its_end() -> None:
    assert "larger than" in problems(Path("/dev/zero"))[0]


def test_a_tolerance_of_a_metric_that_is_judged_no_more_is_left_out(edited: Edit) -> None:
    """Benchmarks have one that were calibrated when it was."""
    tolerances = edited({"verify.tolerances.inexactness": 1.4}).hparams.verify.tolerances
    assert "inexactness" not in dict(tolerances)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 0),
        ({"verify.filter_steps": 3}, 3),
        ({"numerics.compute_dtype": "bfloat16"}, 2),
        ({"numerics.reduce_dtype": "bfloat16"}, 2),
        ({"numerics.state_dtype": "bfloat16"}, 2),
        ({"numerics.compute_dtype": "bfloat16", "verify.filter_steps": 0}, 0),
    ],
)
def test_directions_are_looked_at_where_something_below_float32_is_honest(
    edited: Edit, changes: dict[str, Any], steps: int
) -> None:
    assert edited(changes).hparams.filter_steps == steps


def test_a_calibration_counts_only_for_the_benchmark_that_it_measured(edited: Edit) -> None:
    def calibration(hparams: Hparams) -> dict[str, Any]:
        return {
            "date": "2030-01-01",
            "torch": "2",
            "transformers": "5",
            "device": "cpu",
            "multiple": 3.0,
            "runs": 4,
            "variants": [{"name": "ddp", "runs": 4, "counted": True, "worst": {"loss": 1e-6}}],
            "benchmark_sha256": hparams.noise_sha256(),
        }

    plain = edited({"verify.calibration": None}).hparams
    assert not plain.calibrated
    measured = calibration(plain)
    assert edited({"verify.calibration": measured}).hparams.calibrated
    # Neither the tolerances nor the limits shape the noise; the learning rate does.
    kept = {"verify.calibration": measured, "verify.tolerances.loss": 0.5, "evaluation_runs": 3}
    assert edited(kept).hparams.calibrated
    assert not edited({"verify.calibration": measured, "optimizer.lr": 0.2}).hparams.calibrated
