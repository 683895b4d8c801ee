"""What reaches the terminal and the disk, whatever a file is called."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness import report
from harness.errors import Code, InputError
from harness.result import Phase
from harness.results import result_file
from harness.verify.findings import note
from tests.board.examples import accepted_result, rejected_result


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(report, "Console", lambda: Console(file=text, width=100))
    return text


def test_a_file_name_is_not_taken_for_markup(printed: io.StringIO) -> None:
    assert report.print_remarks(Path("train[red].py"), []) == 0
    assert "train[red].py" in printed.getvalue()


def test_a_file_name_cannot_write_below_the_remarks(printed: io.StringIO) -> None:
    report.print_remarks(Path("train.py\n\nno problems\x1b[2J"), [])
    assert printed.getvalue().splitlines()[-1].startswith("train.py??no problems?[2J: ")


def test_a_verdict_in_somebody_s_traceback_is_marked_as_theirs(printed: io.StringIO) -> None:
    """Sixty empty lines and a green box would push ours out of sight."""
    forged = "\n" * 60 + "╭─ embedded ─╮\n│ ACCEPTED   │\n╰────────────╯"
    result = rejected_result().model_copy(update={"detail": f"Traceback:{forged}"})
    Console(file=printed, width=100).print(report.render(result))
    lines = printed.getvalue().splitlines()
    assert "│ > Traceback:" in printed.getvalue()
    assert sum("ACCEPTED" in line for line in lines) == 1
    assert next(line for line in lines if "ACCEPTED" in line).startswith("│ > │ ACCEPTED")
    assert len(lines) < 40


def test_looking_for_the_results_place_leaves_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = result_file("train.py")
    assert path.parent.is_dir()
    assert not path.exists()
    mine = tmp_path / "mine.json"
    mine.write_text("kept until there is a result")
    assert result_file("train.py", mine).read_text() == "kept until there is a result"


def test_a_result_that_cannot_be_written_is_the_callers_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wanted in (
        tmp_path,
        tmp_path / "file" / "x.json",
        tmp_path / "no" / "x.json",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(InputError):
            result_file("train.py", wanted)
    assert not (tmp_path / "no").exists()  # a folder with a slip in its name is not made


def test_the_loss_that_is_shown_is_the_mean_over_all_rows_as_the_reference_s_is(
    printed: io.StringIO,
) -> None:
    result = accepted_result()
    shown = {(7.4, 7.8): "7.60000", (7.6, None): "7.60000", (0.0, 7.5): "7.50000", (None,): "none"}
    for losses, words in shown.items():
        runs = tuple(
            run.model_copy(update={"reported_losses": losses, "reference_loss": 7.1})
            for run in result.runs
        )
        Console(file=printed, width=120).print(
            report.render(result.model_copy(update={"runs": runs}))
        )
        assert f"{words}         7.10000" in printed.getvalue(), losses


def test_where_the_time_went_is_shown_with_the_verdict(printed: io.StringIO) -> None:
    report.print_result(accepted_result(), Path("result.json"))
    assert "where the time went" in printed.getvalue()
    assert printed.getvalue().rstrip().endswith("result: result.json")


def test_runs_that_fail_alike_are_told_once_and_what_helps_first(printed: io.StringIO) -> None:
    result = rejected_result()
    [run] = result.runs
    asked = note("asked", "the benchmark asks for SGD")
    runs = (
        run.model_copy(update={"findings": (*run.findings, asked)}),
        run.model_copy(update={"run": 1}),
        run.model_copy(update={"run": 2, "findings": (note("tokens", "5 tokens"),)}),
    )
    Console(file=printed, width=200).print(report.render(result.model_copy(update={"runs": runs})))
    shown = [line.strip("│ ") for line in printed.getvalue().splitlines()]
    said = [line for line in shown if line.startswith(("asked", "run 1", "run 2", "run 3"))]
    assert said[0] == "asked: the benchmark asks for SGD"
    assert said[1].startswith("run 1, update error: ")
    assert said[2:] == ["run 2: as run 1 (update error)", "run 3, tokens: 5 tokens"]
    assert "MFU" not in printed.getvalue()  # there is none: no empty column


def test_a_file_that_was_refused_before_it_ran_has_no_times(printed: io.StringIO) -> None:
    result = rejected_result(Code.STRATEGY_WORLD_MISMATCH)
    phases = (Phase(name="prepare", seconds=0.1),)
    report.print_result(result.model_copy(update={"phases": phases}), Path("result.json"))
    assert "where the time went" not in printed.getvalue()
    assert "isolation" not in printed.getvalue()


def test_a_line_of_progress_is_not_said_twice_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    with report.ProgressDisplay() as progress:
        for line in ("hashing", "hashing", "packing", "hashing"):
            progress.line(line)
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == [
        "hashing", "packing", "hashing",
    ]  # fmt: skip
