from harness.errors import Code, InputError, JudgeError, Side, SubmissionError
from harness.result import document
from tests.project import ROOT


def test_the_result_document_is_described_as_it_is() -> None:
    written = (ROOT / "docs" / "result.md").read_text(encoding="utf-8")
    assert written == document(), "run: python -m harness.result > docs/result.md"


def test_every_code_says_who_has_to_act_and_what_it_means() -> None:
    for code in Code:
        assert code.meaning
        assert code.side in Side


def test_the_exit_status_names_the_guilty_side() -> None:
    assert SubmissionError.exit_status == 1
    assert InputError.exit_status == 2
    assert JudgeError.exit_status == 3
