"""What was measured of honest runs can be kept, added to, and concluded from again."""

import json
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.rules import CalibrationVariant
from harness.calibrate.conclude import conclude, write
from harness.calibrate.evidence import (
    Evidence,
    nothing_yet,
    of_calibration,
    pooled,
    read_evidence,
)
from harness.errors import Code, InputError
from harness.measured_file import write_down
from tests.calibrate.test_conclude import RATE, evidence, measured


def variant(name: str, **values: tuple[float, ...]) -> CalibrationVariant:
    worst = {metric: max(each) for metric, each in values.items()}
    return CalibrationVariant(name=name, runs=2, counted=True, worst=worst, values=values)


def test_what_is_added_has_the_runs_of_both(loaded: LoadedHparams) -> None:
    old = variant("variant", loss=(0.2, 0.1), update_error=(1e-3, 1e-4))
    other = variant("other", loss=(0.1, 0.1))
    new = variant("variant", loss=(0.1, 0.3), token_loss_shift=(0.5, 0.4))
    both = pooled(evidence(loaded, old, other), new).variants
    assert [(each.name, each.runs) for each in both] == [("variant", 4), ("other", 2)]
    assert both[0].values == {
        "loss": (0.2, 0.1, 0.1, 0.3), "update_error": (1e-3, 1e-4), "token_loss_shift": (0.5, 0.4),
    }  # fmt: skip
    assert both[0].worst == {"loss": 0.3, "update_error": 1e-3, "token_loss_shift": 0.5}
    assert both[1] == other
    assert pooled(evidence(loaded, other), new).variants == (other, new)


def test_what_was_written_is_read_and_nothing_else_is(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    file = tmp_path / "evidence.json"
    assert read_evidence(file, loaded) is None
    known = evidence(loaded, variant("it", loss=(0.1, 0.2)))
    write_down(file, known)
    assert read_evidence(file, loaded) == known
    changed = loaded.hparams.model_copy(update={"sequence_length": 64})
    with pytest.raises(InputError, match="trained in another way: name another file"):
        read_evidence(file, loaded.model_copy(update={"hparams": changed}))
    file.write_text("a note of mine", encoding="utf-8")
    with pytest.raises(InputError, match="is no file of `validator calibrate`") as caught:
        read_evidence(file, loaded)
    assert caught.value.code is Code.BAD_ARGUMENT


def calibrated(loaded: LoadedHparams, folder: Path, known: Evidence) -> LoadedHparams:
    """A copy of the benchmark with tolerances from these runs."""
    copy = folder / "hparams.json"
    copy.write_bytes(loaded.path.read_bytes())
    write(copy, *conclude(loaded, known, RATE))
    return load(copy)


def test_the_same_runs_give_other_tolerances_at_another_rate(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    noise = evidence(loaded, measured(1e-7, update_error=1e-2), measured(0.2, False, "not"))
    known = noise.model_copy(update={"date": "2026-01-01", "torch": "1.0"})
    copy = calibrated(loaded, tmp_path, known)
    assert of_calibration(copy) == known
    tolerances = copy.hparams.verify.tolerances
    assert conclude(copy, of_calibration(copy), RATE) == (
        tolerances,
        copy.hparams.verify.calibration,
    )
    assert conclude(copy, known, RATE * 10)[0].update_error < tolerances.update_error


def test_a_benchmark_of_which_nothing_was_measured_has_no_evidence(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    copy = calibrated(loaded, tmp_path, evidence(loaded, measured(1e-7)))
    raw = json.loads(copy.path.read_bytes())
    raw["optimizer"]["lr"] = 0.2
    copy.path.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="nothing was measured of") as caught:
        of_calibration(load(copy.path))
    assert caught.value.code is Code.BAD_ARGUMENT


def test_the_worst_alone_is_no_evidence(loaded: LoadedHparams, tmp_path: Path) -> None:
    copy = calibrated(loaded, tmp_path, evidence(loaded, measured(1e-7)))
    raw = json.loads(copy.path.read_bytes())
    del raw["verify"]["calibration"]["variants"][0]["values"]
    copy.path.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="before every run was written down"):
        of_calibration(load(copy.path))


def test_evidence_is_of_this_machine(loaded: LoadedHparams) -> None:
    known = nothing_yet(loaded, "cpu")
    assert known.variants == ()
    assert known.torch and known.transformers and known.device
