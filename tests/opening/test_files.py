"""How many files a rank may open: shared out before the start, so that more of them is somebody's fault."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import Code, InputError
from harness.opening import files
from harness.opening.files import check_files, files_allowed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, int]]:
    """What a machine allows: hard limit of descriptors, mappings; and the soft limit that was set."""
    allows = {"hard": 1_048_576, "maps": 65_530, "soft": 0}
    maps = tmp_path / "max_map_count"

    def get(_: int) -> tuple[int, int]:
        maps.write_text(f"{allows['maps']}\n")
        return 1_024, allows["hard"]

    def put(kind: int, limits: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        allows["soft"] = limits[0]

    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", put)
    monkeypatch.setattr(files, "MAX_MAP_COUNT", maps)
    yield allows


def test_a_usual_machine_allows_1024_files_of_each_rank_and_run(machine: dict[str, int]) -> None:
    assert files_allowed(8, 3) == 1_024
    assert machine["soft"] == 1_048_576


@pytest.mark.parametrize(
    ("hard", "maps", "world_size", "runs", "allowed"),
    [
        (3_512, 65_530, 2, 3, 500),
        (3_517, 65_530, 2, 3, 500),
        (3_518, 65_530, 2, 3, 501),
        (1_048_576, 6_512, 2, 3, 1_000),
        (1_048_576, 65_530, 64, 3, 338),
        (resource.RLIM_INFINITY, 65_530, 1, 1, 1_024),
        (256, 65_530, 1, 1, 0),
    ],
)
def test_what_a_machine_allows_is_shared_out(
    machine: dict[str, int], hard: int, maps: int, world_size: int, runs: int, allowed: int
) -> None:
    machine |= {"hard": hard, "maps": maps}
    assert files_allowed(world_size, runs) == allowed


def test_a_machine_without_a_limit_of_mappings_is_asked_for_descriptors_alone(
    machine: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "MAX_MAP_COUNT", tmp_path / "nothing")
    machine["hard"] = 612
    assert files_allowed(1, 1) == 100


SHAPES = {"experts": (128, 64, 32), "wide": (100_000, 64), "scale": ()}


def test_a_machine_that_allows_too_little_is_told_before_anything_runs(
    machine: dict[str, int],
) -> None:
    """256 files for per-expert names, three of a gibibyte each, one for what remains."""
    machine["hard"] = 512 + 260 * 6
    check_files(SHAPES, 3 * 2**30, world_size=2, runs=3)
    machine["hard"] -= 1
    with pytest.raises(InputError, match="allow 2072 open files") as caught:
        check_files(SHAPES, 3 * 2**30, world_size=2, runs=3)
    assert caught.value.code is Code.BAD_ARGUMENT
    assert "259 files of each rank and run, and 260 can be needed" in caught.value.message


def test_a_model_without_experts_needs_a_file_for_each_gibibyte(machine: dict[str, int]) -> None:
    machine["hard"] = 512 + 3
    check_files({"w": (100_000, 4)}, 1, world_size=1, runs=1)
    with pytest.raises(InputError):
        check_files({"w": (100_000, 4)}, 2**30 + 1, world_size=1, runs=1)
