"""`validator compare`: what it prints fits a narrow terminal and says what was found, and its statuses."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from harness.board.pairs import Comparison, Pair, Plan
from harness.cli import compare as command
from harness.cli.compare import render, sentence
from harness.errors import Code, InputError, SubmissionError, Verdict
from tests.board.test_pairs import REJECTED, result
from tests.project import ROOT
from tests.train_sources import INNER_STEPS

INFINITE = float("inf")


def comparison(ratios: list[float], **fields: Any) -> Comparison:
    pairs = tuple(
        Pair(
            first="contender" if number % 2 == 0 else "leader",
            contender_mfu=0.3 * ratio,
            leader_mfu=0.3,
            contender_tflops=30 * ratio,
            leader_tflops=30,
            ratio=ratio,
        )
        for number, ratio in enumerate(ratios)
    )
    given = {
        "contender": "a" * 64,
        "leader": "b" * 64,
        "plan": Plan(pairs=10, confidence=0.975),
        "pairs": pairs,
        "outcome": "undecided",
        "ratio": 1.0 if pairs else None,
        "low": 0.0,
        "high": INFINITE,
        "alpha": 0.0125,
    }
    return Comparison.model_validate(given | fields)


FASTER = comparison(
    [1.02, 1.035, 1.031, 1.04, 1.027], outcome="faster", ratio=1.031, low=1.012, high=1.05
)
SLOWER = comparison([0.8] * 5, outcome="slower", ratio=0.8, low=0.64, high=0.9)
OPEN = comparison([1.02, 0.97, 1.01, 0.99], ratio=1.001, low=0.985, high=1.021)
FEW = comparison([0.5, 0.52], ratio=0.51)
REFUSED = comparison(
    [], outcome="rejected", rejected="leader", code=Code.LOSS_MISMATCH, message="too low\x1b[2J"
)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (FASTER, "A is 3.1% faster than B (95%: 1.2% to 5.0%)."),
        (SLOWER, "B is 25.0% faster than A (95%: 11.1% to 56.2%)."),
        (
            OPEN,
            "No difference could be shown with 4 pairs: A's speed is between 1.5% below and 2.1% above "
            "B's (95%).",
        ),
        (
            FEW,
            "No difference could be shown: 2 pairs cannot tell one from noise. It takes 4 at least.",
        ),
        (REFUSED, "B was rejected (loss_mismatch): too low?[2J"),
    ],
)
def test_the_conclusion_is_a_sentence(found: Comparison, said: str) -> None:
    assert sentence(found) == said


def drawn(found: Comparison) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=80).print(render(found, "mine.py", "other.py"))
    return output.getvalue().splitlines()


def test_the_plot_shows_every_pair_and_the_interval_in_80_columns_without_colour() -> None:
    lines = drawn(FASTER)
    assert all(len(line.rstrip()) <= 80 for line in lines)
    text = "\n".join(lines)
    assert "\x1b" not in text and "…" not in text
    rows = lines[4:9]
    assert [row.split()[:5] for row in rows[:2]] == [
        ["1", "A", "30.60%", "30.00%", "1.0200"],
        ["2", "B", "31.05%", "30.00%", "1.0350"],
    ]
    # Further right is faster: pairs in the order of their ratios, and all right of the line at 1.
    dots = [row.index("●") for row in rows]
    assert sorted(range(5), key=dots.__getitem__) == [0, 4, 2, 1, 3]
    assert all(row.index("│") < row.index("●") for row in rows)
    bar = lines[9]
    assert bar.index("│") < bar.index("├") < bar.index("●") < bar.index("┤")
    assert lines[-1] == "A is 3.1% faster than B (95%: 1.2% to 5.0%)."


def test_an_interval_that_ends_nowhere_is_an_arrow_or_nothing() -> None:
    assert not set("├┤◄►─") & set("".join(drawn(FEW)))
    far = comparison([1.02, 1.03, 1.01, 1.02], outcome="undecided", low=0.2, high=1.05)
    bar = drawn(far)[8]
    assert "◄" in bar and "┤" in bar


def test_pairs_that_do_not_differ_at_all_can_be_drawn() -> None:
    assert "●" in "".join(drawn(comparison([1.0, 1.0])))


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.py", tmp_path / "b.py"
    paths[0].write_text(INNER_STEPS)
    paths[1].write_text(INNER_STEPS + "# slower\n")
    return paths


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    command.add_to(made)
    made.callback()(lambda: None)
    return made


def test_both_judged_is_status_0_and_the_numbers_are_json(
    app: typer.Typer, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = []

    def judge(path: Path, **options: Any) -> Any:
        asked.append((path.name, path.read_text()[-9:], options))
        for original in files:
            original.write_text("edited meanwhile")
        return result(0.33 if path.name == "a.py" else 0.30)

    monkeypatch.setattr("harness.api.judge_file", judge)
    done = CliRunner().invoke(
        app, ["compare", *map(str, files), "--pairs", "4", "--world", "2", "--json", "-"]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["outcome"], document["ratio"]) == ("faster", pytest.approx(1.1))
    assert document["plan"]["confidence"] == pytest.approx(0.975)
    written = json.loads((ROOT / "hparams.json").read_text())["verify"]["calibration"]
    together = document["plan"]["together"]
    assert together["strict_update_error"] == written["strict_update_error"]
    assert [name for name, _, _ in asked] == ["a.py", "b.py", "b.py", "a.py"] * 2
    assert {end for name, end, _ in asked if name == "b.py"} == {"# slower\n"}
    assert asked[0][2]["runs"] == 1 and asked[0][2]["world_size"] == 2


def test_a_rejected_file_is_status_1(
    app: typer.Typer, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert REJECTED.verdict is Verdict.REJECTED
    monkeypatch.setattr("harness.api.judge_file", lambda path, **options: REJECTED)
    numbers = tmp_path / "numbers.json"
    done = CliRunner().invoke(app, ["compare", *map(str, files), "--json", str(numbers)])
    assert done.exit_code == 1
    assert "A was rejected (update_mismatch)" in done.stdout
    assert json.loads(numbers.read_text())["rejected"] == "contender"


def test_a_file_that_cannot_be_run_stops_it_before_the_other_one_is(
    app: typer.Typer, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(path: Path, **options: Any) -> Any:
        raise AssertionError("nothing should run")

    monkeypatch.setattr("harness.api.judge_file", judge)
    bad = ROOT / "tests" / "submissions" / "syntax_error.py"
    done = CliRunner().invoke(app, ["compare", str(files[0]), str(bad)])
    assert isinstance(done.exception, SubmissionError)
    done = CliRunner().invoke(app, ["compare", str(files[0]), "no-such-file.py"])
    assert isinstance(done.exception, InputError)


@pytest.mark.parametrize("wrong", [["--pairs", "0"], ["--confidence", "1"], ["--world", "0"]])
def test_options_out_of_bounds_are_refused(
    app: typer.Typer, files: tuple[Path, Path], wrong: list[str]
) -> None:
    assert CliRunner().invoke(app, ["compare", *map(str, files), *wrong]).exit_code == 2
