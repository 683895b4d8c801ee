"""Peaks: a device gets its own figure or an error, never a relative's."""

import time

import pytest

from harness.errors import Code, InputError
from harness.peaks import Peak, find_peak, measure_cpu_peak


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("A100-SXM4-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 SXM5", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA B300 SXM6 AC", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA GB300", 2500),
        ("AMD Instinct MI250X", 191.5),
        ("AMD Instinct MI300X", 1307),
        ("AMD Instinct MI325X", 1307),
        ("AMD Instinct MI355X", 2500),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_a_known_gpu_gets_its_dense_bf16_peak(name: str, tflops: float) -> None:
    assert find_peak(name) == Peak(tflops, "table", name)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100",  # which of the three?
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GH200 480GB",
        "NVIDIA H200 NVL",
        "NVIDIA H20",
        "NVIDIA H800",
        "NVIDIA A10",
        "NVIDIA A1000",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "AMD Instinct MI250X / MI250",
        "AMD Instinct MI300A",
        "Tesla T4",
        "",
        "CPU",
    ],
)
def test_a_relative_of_a_known_gpu_is_an_error_that_asks_for_the_peak(name: str) -> None:
    with pytest.raises(InputError, match=r"mfu\.peak_tflops") as caught:
        find_peak(name)
    assert caught.value.code is Code.UNKNOWN_PEAK
    assert find_peak(name, override=123.0) == Peak(123.0, "hparams", name)


def test_hparams_go_before_the_table_and_the_measurement() -> None:
    assert find_peak("NVIDIA H200", 500.0).tflops == 500.0
    assert find_peak("cpu", 0.25) == Peak(0.25, "hparams", "cpu")


def test_a_cpu_is_measured_near_what_a_product_takes_and_torch_is_left_as_it_was() -> None:
    import torch

    before = torch.get_num_threads()
    peak = find_peak("cpu", threads=1)
    assert torch.get_num_threads() == before
    assert (peak.source, peak.device) == ("measured", "cpu, 1 thread")

    torch.set_num_threads(1)
    try:
        matrix = torch.rand(2048, 2048)
        torch.mm(matrix, matrix)
        start = time.process_time()
        torch.mm(matrix, matrix)
        own = 2 * 2048**3 / (time.process_time() - start) / 1e12
    finally:
        torch.set_num_threads(before)
    # Wide, for a machine that is busy with other things; a unit wrong by 1000 shows.
    assert own / 8 < peak.tflops < own * 8


def test_the_measurement_is_quick() -> None:
    start = time.perf_counter()
    measure_cpu_peak(1)
    assert time.perf_counter() - start < 10
