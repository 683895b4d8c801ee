"""What makes times comparable: machines of one class, also where ranks are on several."""

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.board.hardware import fixed_peak, in_words, this_hardware
from harness.machine import cores, cpu_name


@pytest.mark.parametrize(
    ("device", "count", "devices", "words"),
    [
        ("cpu", 8, ("x86_64",), "8 CPU cores, x86_64"),
        ("cpu", 8, ("x86_64", "x86_64"), "2 x 8 CPU cores, x86_64"),
        ("cuda", 8, ("NVIDIA H200",), "1 x NVIDIA H200"),
        ("cuda", 8, ("NVIDIA H200",) * 16, "16 x NVIDIA H200"),
    ],
)
def test_a_class_says_how_many_of_what(
    device: str, count: int, devices: tuple[str, ...], words: str
) -> None:
    assert in_words("cpu" if device == "cpu" else "cuda", count, devices) == words


def test_one_machine_stands_for_all_of_a_benchmark_on_several(loaded: LoadedHparams) -> None:
    hparams = loaded.hparams
    two = hparams.model_copy(update={"world": hparams.world.model_copy(update={"nodes": 2})})
    here = f"{cores()} CPU cores, {cpu_name()}"
    assert this_hardware(hparams, 2) == here
    assert this_hardware(two, 2) == f"2 x {here}"
    peak = {"mfu": hparams.mfu.model_copy(update={"peak_tflops": 0.25})}
    assert fixed_peak(two.model_copy(update=peak), 2) == 0.25
