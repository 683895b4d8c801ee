"""A sweep can be ended and added to; a file of something else is not written over."""

from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.errors import Code, InputError
from harness.power.measured import Case, Power, pooled, read_measured, write_measured
from harness.reference.cheats.families import Cheat, Family


def case(family: Family, strength: float, runs: int, found: int, nearest: str) -> Case:
    return Case(
        cheats=(Cheat(family=family, strength=strength),), saves=0.1, saves_bytes=0.0, runs=runs,
        found=found, strict=found - 1, nearest=nearest, times=1.5,
    )  # fmt: skip


def power_of(loaded: LoadedHparams, *cases: Case) -> Power:
    return Power(
        benchmark="b", hparams_sha256=loaded.sha256, evaluation_runs=2, strict_update_error=None,
        cases=cases,
    )  # fmt: skip


def test_runs_of_the_same_cheat_add_up(loaded: LoadedHparams) -> None:
    first = power_of(loaded, case("rows", 0.1, 3, 2, "loss"), case("top_1", 0.1, 3, 3, "loss"))
    more = pooled(first, case("rows", 0.1, 5, 4, "norm_ratio"))
    assert [(each.runs, each.found, each.strict) for each in more.cases] == [(8, 6, 4), (3, 3, 2)]
    assert more.cases[0].nearest == "norm_ratio", "of the one with more runs"
    assert pooled(more, case("rows", 0.1, 2, 1, "loss")).cases[0].nearest == "norm_ratio"
    assert len(pooled(more, case("rows", 0.2, 1, 1, "loss")).cases) == 3


def test_what_was_written_is_read(loaded: LoadedHparams, tmp_path: Path) -> None:
    file = tmp_path / "power.json"
    assert read_measured(file, loaded) is None
    power = power_of(loaded, case("rows", 0.1, 3, 2, "loss"))
    write_measured(file, power)
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


def test_runs_on_other_hparams_do_not_add_up(loaded: LoadedHparams, tmp_path: Path) -> None:
    file = tmp_path / "power.json"
    write_measured(file, power_of(loaded).model_copy(update={"hparams_sha256": "0" * 64}))
    with pytest.raises(InputError, match="with other hparams: name another file"):
        read_measured(file, loaded)
