"""What a train file reads of hparams inside the sandbox (`env.benchmark`)."""

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.problem import AdamW, Sgd
from harness.timed.job import BENCHMARK_FIELDS


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Hparams], Any]:
    """As the worker does: the judge writes the file, the module reads it when it is imported."""

    def read_back(hparams: Hparams) -> Any:
        file = tmp_path / "benchmark.json"
        file.write_text(hparams.model_dump_json(include=BENCHMARK_FIELDS))
        monkeypatch.setenv("TRAINJUDGE_BENCHMARK", str(file))
        module: ModuleType = importlib.import_module("env.benchmark")
        return module.load(file)

    return read_back


def with_optimizer(loaded: LoadedHparams, **optimizer: object) -> Hparams:
    raw = json.loads(loaded.path.read_bytes()) | {"optimizer": optimizer}
    return Hparams.model_validate_json(json.dumps(raw))


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "lr": 0.5, "momentum": 0.9, "weight_decay": 0.1, "warmup_steps": 3},
        {
            "name": "adamw",
            "lr": 0.5,
            "beta1": 0.8,
            "beta2": 0.95,
            "eps": 1e-4,
            "max_grad_norm": 1.0,
        },
    ],
)
def test_every_setting_of_the_optimizer_reaches_the_train_file(
    loaded: LoadedHparams, read: Callable[[Hparams], Any], optimizer: dict[str, object]
) -> None:
    hparams = with_optimizer(loaded, **optimizer)
    seen = dataclasses.asdict(read(hparams).optimizer)
    assert {name: seen[name] for name in optimizer} == optimizer
    assert set(seen) == set(Sgd.model_fields) | set(AdamW.model_fields)


def test_the_train_file_learns_the_problem_and_nothing_of_how_it_is_judged(
    loaded: LoadedHparams, read: Callable[[Hparams], Any]
) -> None:
    seen = dataclasses.asdict(read(loaded.hparams))
    assert set(seen) == {"sequence_length", "global_batch", "optimizer", "numerics"}
    assert seen["numerics"]["compute_dtype"] == loaded.hparams.numerics.compute_dtype
