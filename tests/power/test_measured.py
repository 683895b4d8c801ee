"""A sweep can be ended and added to; a file of something else is not written over."""

import math
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.errors import Code, InputError
from harness.measured_file import write_down
from harness.power.measured import (
    Case,
    Power,
    RunFigures,
    nothing_yet,
    pooled,
    read_measured,
)
from harness.reference.cheats.families import Cheat, Family


def case(family: Family, strength: float, *errors: float) -> Case:
    return Case(
        cheats=(Cheat(family=family, strength=strength),), saves=0.1, saves_bytes=0.0,
        metrics={"loss": (0.0,) * len(errors), "update_error": errors},
        rejected_by=(("still",), *((),) * (len(errors) - 1)),
    )  # fmt: skip


def power_of(loaded: LoadedHparams, *cases: Case) -> Power:
    return nothing_yet(loaded.hparams).model_copy(update={"cases": cases})


def test_a_case_is_its_runs() -> None:
    first, second = case("rows", 0.1, 0.2, 0.3).runs
    assert first == RunFigures({"loss": 0.0, "update_error": 0.2}, ("still",))
    assert second.rejected_by == ()
    assert (second.measured("update_error"), second.measured("matched_filter")) == (0.3, None)


def test_runs_of_the_same_cheat_add_up(loaded: LoadedHparams) -> None:
    first = power_of(loaded, case("rows", 0.1, 0.2, 0.3), case("top_1", 0.1, 0.4))
    more = pooled(first, case("rows", 0.1, 0.5))
    assert more.cases[0].runs == (*first.cases[0].runs, *case("rows", 0.1, 0.5).runs)
    assert more.cases[1] == first.cases[1]
    assert len(pooled(more, case("rows", 0.2, 0.1)).cases) == 3


def test_what_was_written_is_read(loaded: LoadedHparams, tmp_path: Path) -> None:
    file = tmp_path / "power.json"
    assert read_measured(file, loaded) == nothing_yet(loaded.hparams)
    power = power_of(loaded, case("rows", 0.1, 0.2, math.inf))
    write_down(file, power)
    assert read_measured(file, loaded) == power
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", "[]", "a note of mine", '{"benchmark": "b"}'])
def test_a_file_of_something_else_is_refused(
    loaded: LoadedHparams, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "notes.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="is no file of `validator power`") as caught:
        read_measured(file, loaded)
    assert caught.value.code is Code.BAD_ARGUMENT
    assert file.read_text(encoding="utf-8") == content


def test_runs_of_another_training_do_not_add_up_but_other_tolerances_judge_them_anew(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    file = tmp_path / "power.json"
    write_down(file, power_of(loaded))

    def changed(**update: object) -> LoadedHparams:
        return loaded.model_copy(update={"hparams": loaded.hparams.model_copy(update=update)})

    verify = loaded.hparams.verify
    for other in (
        changed(sequence_length=64),
        changed(verify=verify.model_copy(update={"attribution_samples": 1000})),
    ):
        with pytest.raises(InputError, match="in another way: name another file"):
            read_measured(file, other)
    assert read_measured(file, changed(verify=verify.model_copy(update={"calibration": None})))
