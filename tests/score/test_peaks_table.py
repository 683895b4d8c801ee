"""The table of peaks says where each figure stands in print, and the documentation shows the same."""

import re

import pytest

from harness.score.peaks import KNOWN_DEVICES, KnownDevice
from tests.project import ROOT

DOCUMENTATION = ROOT / "docs" / "peaks.md"
EACH = pytest.mark.parametrize("known", KNOWN_DEVICES, ids=lambda known: known.name)


def row(known: KnownDevice) -> str:
    cited = known.citation
    cells = (known.name, f"{known.tflops:g}", cited.document, cited.row, cited.read)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def test_the_documented_table_is_the_table_in_the_code() -> None:
    lines = DOCUMENTATION.read_text().splitlines()
    start = lines.index("|---|---|---|---|---|") + 1
    shown = [line for line in lines[start:] if line.startswith("| ")]
    assert shown == [row(known) for known in KNOWN_DEVICES]


@EACH
def test_a_peak_is_the_printed_figure_of_one_device_without_sparsity(known: KnownDevice) -> None:
    cited = known.citation
    dense = cited.printed / 2 if cited.sparse else cited.printed
    # Vendors round, as the table does. Sparsity left in, or a board taken for a device, is twice off.
    assert known.tflops == pytest.approx(dense / cited.devices, rel=0.01)


@EACH
def test_the_printed_figure_is_in_the_words_that_are_cited(known: KnownDevice) -> None:
    cited = known.citation
    numbers = {float(number) for number in re.findall(r"\d[\d.]*\d|\d", cited.row.replace(",", ""))}
    unit = 1000 if "PFLOPS" in cited.row else 1
    assert any(number * unit == pytest.approx(cited.printed) for number in numbers)
    assert ("with sparsity" in cited.row) == cited.sparse


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 SXM5 80GB", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA B300 SXM6 AC", "B200, B300"),
        ("NVIDIA GB200", "GB200, GB300"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("AMD Instinct MI300X OAM", "MI300X, MI325X"),
    ],
)
def test_a_device_is_in_one_row_of_the_table_only(name: str, expected: str) -> None:
    bare = re.sub("^(NVIDIA|AMD) ", "", name).upper()
    found = [known.name for known in KNOWN_DEVICES if re.fullmatch(known.pattern, bare)]
    assert found == [expected]
