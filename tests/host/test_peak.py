"""Peaks: a device gets its own figure or an error, never a relative's."""

import math
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import machine
from harness.benchmark.hparams import LoadedHparams
from harness.errors import Code, InputError
from harness.host import known_peak
from harness.host import peak as peaks
from harness.host.known_peak import settled
from harness.host.peak import find_peak, measure_cpu_peak
from harness.score.peaks import Peak


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("A100-SXM4-40GB", 312),
        ("nvidia  a100", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 SXM5 80GB HBM3", 989),
        ("NVIDIA H100 SXM5", 989),
        ("NVIDIA H100 SXM5 80GB", 989),
        ("NVIDIA H100 80GB PCIe", 756),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 SXM5 141GB HBM3e", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA B200 192 GB HBM3e", 2250),
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
        ("AMD Instinct MI300X OAM", 1307),
        ("NVIDIA L40S 48GB", 362),
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
    assert find_peak("NVIDIA H200", 500.0) == Peak(500.0, "hparams", "NVIDIA H200")
    assert find_peak("cpu", 0.25) == Peak(0.25, "hparams", "cpu")


# --- a CPU, measured --------------------------------------------------------------------------


class Clock:
    """A clock that advances by `step` seconds with every look at it."""

    def __init__(self, step: float) -> None:
        self.now = 1_000.0
        self.step = step
        self.looks = 0

    def perf_counter(self) -> float:
        self.looks += 1
        self.now += self.step
        return self.now


@pytest.mark.parametrize(
    ("step", "least", "most"),
    [(10.0, 14, 14), (0.5, 14, 14), (1 / 64, 34, 37)],
    ids=["slow", "as long as it takes", "fast: half a second"],
)
def test_a_cpu_is_measured_for_half_a_second_and_by_five_products_at_least(
    monkeypatch: pytest.MonkeyPatch, step: float, least: int, most: int
) -> None:
    """Twice for each product it looks at the clock; once before them, and from the fifth on before each."""
    clock = Clock(step)
    monkeypatch.setattr(peaks, "time", clock)
    assert peaks._fastest_product("float32", 8, math.inf) == step
    assert least <= clock.looks <= most


def test_the_fastest_of_all_products_is_what_the_cores_can_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The looks: around the first product, for the end, around five products, for the end again."""
    looks = iter([0, 1, 1, 2, 7, 7, 10, 10, 14, 14, 20, 20, 26, 26])
    monkeypatch.setattr(peaks, "time", SimpleNamespace(perf_counter=lambda: next(looks)))
    assert peaks._fastest_product("float32", 8, math.inf) == 3


@pytest.mark.parametrize(("known", "measured"), [(0.49, False), (0.5, True)])
def test_a_dtype_that_is_twenty_times_slower_from_the_start_is_not_measured_to_the_end(
    monkeypatch: pytest.MonkeyPatch, known: float, measured: bool
) -> None:
    clock = Clock(10.0)
    monkeypatch.setattr(peaks, "time", clock)
    found = peaks._fastest_product("bfloat16", 8, known)
    assert (found, clock.looks > 2) == ((10.0, True) if measured else (math.inf, False))


@pytest.mark.parametrize(
    ("threads", "size"),
    [(1, 1_024), (4, 1_024), (5, 2_048), (16, 2_048), (17, 4_096), (999, 4_096)],
)
def test_more_cores_get_larger_products(threads: int, size: int) -> None:
    assert peaks._product_size(threads) == size


class Products:
    """Let products take these times, by dtype; remembers torch's threads meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.threads: list[int] = []
        self.seconds = seconds
        monkeypatch.setattr(peaks, "SIZES", ((1_000_000, 1_024),))
        monkeypatch.setattr(peaks, "_fastest_product", self)

    def __call__(self, dtype: str, size: int, known: float) -> float:
        self.threads.append(torch.get_num_threads())
        return self.seconds[dtype]


@pytest.mark.parametrize(
    ("own", "reachable", "world_size", "share", "device"),
    [
        (1, 1, 1, 1.0, "cpu, 1 core, float32"),
        (2, 2, 2, 0.5, "cpu, 2 cores for 2 ranks, float32"),
        (7, 7, 4, 0.25, "cpu, 7 cores for 4 ranks, float32"),
        (4, 8, 2, 1.0, "cpu, 8 cores for 2 ranks, float32"),
    ],
)
def test_a_rank_s_peak_is_its_share_of_all_cores_that_ranks_can_reach(
    monkeypatch: pytest.MonkeyPatch,
    own: int,
    reachable: int,
    world_size: int,
    share: float,
    device: str,
) -> None:
    """2 · 1024^3 FLOPs in 2 ms are 1.07 TFLOP/s."""
    monkeypatch.setattr(peaks, "cores", lambda: own)
    monkeypatch.setattr(peaks, "reachable_cores", lambda: reachable)
    products = Products(monkeypatch, float32=0.002)
    before = torch.get_num_threads()
    peak = find_peak("cpu", world_size=world_size)
    assert peak.tflops == pytest.approx(1.073741824 * share, rel=1e-12)
    assert (peak.source, peak.device) == ("measured", device)
    assert (products.threads, torch.get_num_threads()) == ([own], before)


@pytest.mark.parametrize(("bfloat16", "fastest"), [(0.0005, 0.0005), (0.02, 0.002)])
def test_where_two_dtypes_are_allowed_the_faster_one_counts(
    monkeypatch: pytest.MonkeyPatch, bfloat16: float, fastest: float
) -> None:
    """AMX and AVX512-BF16 make bfloat16 several times as fast; without them it is slower."""
    Products(monkeypatch, float32=0.002, bfloat16=bfloat16)
    peak = find_peak("cpu", dtypes=("float32", "bfloat16"))
    assert peak.tflops == pytest.approx(2 * 1_024**3 / fastest / 1e12, rel=1e-12)
    assert peak.device.endswith(", float32 or bfloat16")


@pytest.mark.parametrize(
    ("compute_dtype", "dtypes"), [("float32", "float32"), ("bfloat16", "float32 or bfloat16")]
)
def test_a_benchmark_s_compute_dtype_decides_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, loaded: LoadedHparams, compute_dtype: str, dtypes: str
) -> None:
    Products(monkeypatch, float32=0.002, bfloat16=0.002)
    hparams = loaded.hparams
    numerics = hparams.numerics.model_copy(update={"compute_dtype": compute_dtype})
    mfu = hparams.mfu.model_copy(update={"peak_tflops": None})
    asked = hparams.model_copy(update={"numerics": numerics, "mfu": mfu})
    peak = peaks.peak_of(machine.describe("cpu", 2), asked, 2)
    assert peak.device.endswith(f" for 2 ranks, {dtypes}") or peak.device.endswith(dtypes)


def test_a_gpu_s_peak_is_that_of_its_name(loaded: LoadedHparams) -> None:
    mfu = loaded.hparams.mfu.model_copy(update={"peak_tflops": None})
    asked = loaded.hparams.model_copy(update={"mfu": mfu})
    devices = ("NVIDIA H100 80GB HBM3",)
    found = machine.describe("cpu", 1).model_copy(update={"device": "cuda", "devices": devices})
    assert peaks.peak_of(found, asked, 8) == Peak(989, "table", devices[0])


def test_one_rank_has_all_cores_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    Products(monkeypatch, float32=0.002)
    assert measure_cpu_peak() == measure_cpu_peak(1, ("float32",))


def test_torch_is_left_as_it_was_when_the_measurement_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> float:
        raise MemoryError

    before: int = torch.get_num_threads()
    monkeypatch.setattr(peaks, "_fastest_product", fail)
    monkeypatch.setattr(peaks, "cores", lambda: before + 1)
    with pytest.raises(MemoryError):
        measure_cpu_peak()
    assert torch.get_num_threads() == before


def test_a_measured_peak_is_near_what_a_product_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "MEASURE_SECONDS", 0.05)
    monkeypatch.setattr(peaks, "cores", lambda: 1)
    monkeypatch.setattr(peaks, "reachable_cores", lambda: 1)
    peak = measure_cpu_peak()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = torch.rand(1024, 1024)
        torch.mm(matrix, matrix)
        start = time.process_time()
        torch.mm(matrix, matrix)
        own = 2 * 1024**3 / (time.process_time() - start) / 1e12
    finally:
        torch.set_num_threads(before)
    # Very wide, for a machine that is busy with other things; a unit wrong by 1000 shows.
    assert own / 30 < peak.tflops < own * 30


# --- what was measured before ------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINJUDGE_DATA", str(tmp_path))
    return tmp_path


def measured(tflops: float, device: str = "cpu, 2 cores, float32") -> Peak:
    return Peak(tflops, "measured", device)


def test_the_largest_of_both_counts_and_is_remembered(folder: Path) -> None:
    assert settled(measured(0.50), measured(0.52)) == (measured(0.52), [])
    # A slow moment later on.
    peak, (doubt,) = settled(measured(0.26), measured(0.26))
    assert peak == measured(0.52)
    assert re.fullmatch(
        r"the CPU's peak was 0.52 .* at \d{4}-\d\d-\d\d \d\d:\d\d UTC, which counts, and 0.26 at most .*",
        doubt,
    )
    assert settled(measured(0.60), measured(0.60)) == (measured(0.60), [])
    assert settled(measured(0.58), measured(0.58)) == (measured(0.60), [])


@pytest.mark.parametrize(("before", "after", "doubted"), [(0.95, 1.0, False), (1.0, 0.94, True)])
def test_two_measurements_that_differ_by_more_than_a_twentieth_are_doubted(
    folder: Path, before: float, after: float, doubted: bool
) -> None:
    peak, doubts = settled(measured(before), measured(after))
    assert peak == measured(1.0)
    assert bool(doubts) == doubted
    assert not doubts or "was 1 TFLOP/s a device before the runs and 0.94 after" in doubts[0]


def test_other_cores_dtypes_and_processors_are_other_machines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(measured(9.0), measured(9.0))
    for device in ("cpu, 4 cores, float32", "cpu, 2 cores, float32 or bfloat16"):
        assert settled(measured(1.0, device), measured(1.0, device))[0].tflops == 1.0
    monkeypatch.setattr(known_peak, "CPUINFO", folder / "nothing")
    assert settled(measured(1.0), measured(1.0))[0].tflops == 1.0


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"x": {"tflops": "much"}}'])
def test_a_file_that_cannot_be_understood_is_made_anew(folder: Path, content: bytes) -> None:
    (folder / known_peak.KNOWN.file).write_bytes(content)
    settled(measured(2.0), measured(2.0))
    assert settled(measured(1.0), measured(1.0))[0].tflops == 2.0


def test_where_nothing_can_be_remembered_the_measurement_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRAINJUDGE_DATA", str(tmp_path / "file" / "below"))
    assert settled(measured(2.0), measured(2.0))[0].tflops == 2.0
    assert settled(measured(1.0), measured(1.0))[0].tflops == 1.0
