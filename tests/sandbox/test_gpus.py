"""A sandbox gets the GPUs that MFU counts. The driver's files are made up: few machines have any."""

from pathlib import Path

import pytest

from harness.sandbox import Level, Sandbox, bubblewrap, gpus
from harness.sandbox.environment import clean_environment
from harness.sandbox.job import Job
from tests.sandbox_programs import make_job

pytest_plugins = ("tests.sandbox_levels",)

SHARED = {"nvidiactl", "nvidia-uvm", "nvidia-caps"}


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with four GPUs, whose device files are numbered the other way round."""
    devices, driver = tmp_path / "dev", tmp_path / "driver"
    devices.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "sda"):
        (devices / name).touch()
    (devices / "nvidia-caps").mkdir()
    for minor, name in enumerate(("GPU-dd", "GPU-cc", "GPU-bb", "GPU-aa")):
        folder = driver / f"0000:0{minor}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t\t NVIDIA H200\nGPU UUID: \t {name}\nDevice Minor: \t {minor}\n"
        )
    monkeypatch.setattr(gpus, "DEVICES", devices)
    monkeypatch.setattr(gpus, "DRIVER", driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb,GPU-cc")
    return tmp_path


def names(count: int) -> set[str]:
    return {file.name for file in gpus.device_files(count)}


@pytest.mark.usefixtures("four")
def test_the_files_of_those_that_count_and_what_all_share() -> None:
    assert names(2) == {"nvidia3", "nvidia2"} | SHARED
    assert names(1) == {"nvidia3"} | SHARED
    assert gpus.told_apart(2)


def test_a_driver_that_does_not_say_whose_a_file_is_gives_all(four: Path) -> None:
    (four / "driver" / "0000:03:00.0" / "information").write_text("Model: NVIDIA H200\n")
    assert names(1) == {"nvidia0", "nvidia1", "nvidia2", "nvidia3"} | SHARED
    assert not gpus.told_apart(1)


@pytest.mark.usefixtures("four")
def test_slices_of_a_gpu_get_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    assert len(names(1)) == 7
    assert not gpus.told_apart(1)


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("level", "held"),
    [(Level.DOCKER, True), (Level.BUBBLEWRAP, True), (Level.USER, False), (Level.NONE, False)],
)
def test_levels_that_hold_the_others_back(level: Level, held: bool) -> None:
    assert Sandbox(level).holds_back_gpus(2) is held


@pytest.mark.usefixtures("four")
def test_bubblewrap_binds_no_others(folder: Path) -> None:
    job = Job(**{**vars(make_job(folder, "")), "gpus": 2})
    bound = [word for word in bubblewrap._system(job, 60600, []) if "/dev/nvidia" in word]
    assert {Path(word).name for word in bound} == {"nvidia3", "nvidia2"} | SHARED


@pytest.mark.usefixtures("four")
def test_inside_gpus_are_known_by_their_ids(folder: Path) -> None:
    job = Job(**{**vars(make_job(folder, "")), "gpus": 2})
    assert clean_environment(job, "/tmp")["CUDA_VISIBLE_DEVICES"] == "GPU-aa,GPU-bb"
    assert clean_environment(make_job(folder, ""), "/tmp")["CUDA_VISIBLE_DEVICES"] == ""
