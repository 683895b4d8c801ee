"""The doctor says what is there, and names the cure for what is not."""

import platform
from pathlib import Path

import pytest
from rich.console import Console

from harness.benchmark.hparams import load_hparams
from harness.host.doctor import Device, DoctorReport, examine, render
from harness.sandbox import Level, choose, probe


@pytest.fixture(scope="module")
def report() -> DoctorReport:
    return examine()


def shown(report: DoctorReport) -> str:
    console = Console(width=400, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(render(report))
    return console.export_text()


def test_the_doctor_reports_this_very_machine(report: DoctorReport) -> None:
    import torch

    assert report.python.endswith(platform.python_version())
    assert report.packages["torch"] == torch.__version__
    assert len(report.devices) == torch.cuda.device_count() + 1
    assert 0 < report.memory_free <= report.memory_total
    assert report.memory_total == report.devices[-1].memory_bytes
    assert report.cpus >= 1


def test_the_cpu_has_a_measured_peak(report: DoctorReport) -> None:
    cpu = report.devices[-1]
    assert cpu.peak_source == "measured"
    assert cpu.peak_tflops is not None and 0.001 < cpu.peak_tflops < 100


def test_the_doctor_and_the_judge_agree_on_the_sandboxes(report: DoctorReport) -> None:
    benchmark = load_hparams(None).sha256
    assert [(each.level, each.available) for each in report.sandboxes] == [
        (each.level, each.available) for each in probe(benchmark)
    ]
    assert report.best_sandbox is choose("auto", hparams_sha256=benchmark).level
    assert report.sandboxes[-1].level is Level.NONE
    assert report.sandboxes[-1].available


def test_the_report_survives_json(report: DoctorReport) -> None:
    assert DoctorReport.model_validate_json(report.model_dump_json()) == report


def test_the_table_tells_why_a_sandbox_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: DoctorReport
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without bwrap
    bare = report.model_copy(update={"sandboxes": examine().sandboxes})
    text = shown(bare)
    assert "bwrap is not installed; install it with `apt-get install bubblewrap`" in text
    assert "works" in text and "missing" in text


def test_an_unknown_gpu_is_shown_with_what_to_set(report: DoctorReport) -> None:
    from harness.host.doctor import _device

    device = _device("Quantum [bold]Card[/bold] 9000", 2**34)
    assert device.peak_tflops is None
    text = shown(report.model_copy(update={"devices": (device,)}))
    assert "Quantum [bold]Card[/bold] 9000" in text
    assert "mfu.peak_tflops" in text


def test_a_known_gpu_has_the_peak_of_the_table() -> None:
    from harness.host.doctor import _device

    expected = Device(
        name="NVIDIA H200", memory_bytes=2**37, peak_tflops=989.0, peak_source="table"
    )
    assert _device("NVIDIA H200", 2**37) == expected
