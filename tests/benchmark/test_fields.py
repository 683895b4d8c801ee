"""docs/benchmark.md says of every field what it is."""

from harness.benchmark.fields import BEGIN, END, document, in_step, sections
from harness.benchmark.hparams import Hparams
from harness.benchmark.rules import Calibration
from tests.project import ROOT


def test_the_organisers_guide_has_the_fields_as_they_are() -> None:
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page == in_step(page), "run: python -m harness.benchmark.fields docs/benchmark.md"


def test_every_section_and_field_is_explained() -> None:
    for path, model in sections(Hparams, ""):
        assert model.__doc__ and model.__doc__ != model.__base__.__doc__, path
        for name, field in model.model_fields.items():
            assert field.description, f"{path}.{name}"


def test_all_kinds_of_a_section_are_there_and_what_calibrate_writes_is_not() -> None:
    found = dict(sections(Hparams, ""))
    assert {"model, source `hub`", "model, source `local`", "optimizer, name `adamw`"} <= set(found)
    assert "verify.tolerances" in found
    assert Calibration not in found.values()


def test_units_limits_and_defaults_are_read_from_the_model() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| `")]
    assert "| `run_seconds` | number, over 0 to 86,400 | 600 | one timed run |" in rows
    assert any(
        row.startswith("| `max_grad_norm` | number or null, over 0 | null |") for row in rows
    )
    assert any(row.startswith("| `device` | `auto` or `cpu` or `cuda` | `auto` |") for row in rows)
    # A bar in a meaning would end the cell.
    assert any("\\|loss − reference\\|" in row for row in rows)
