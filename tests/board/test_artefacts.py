"""Kept evaluations: the newest that fit stay, and nothing that a submission has left there does harm."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.board.artefacts import Artefacts
from harness.errors import Code, InputError
from harness.sandbox.removal import remove_tree
from tests.project import ROOT

BLOCK = 4096
NAME = "n" * 200


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Artefacts]:
    """At most four blocks."""
    yield Artefacts(tmp_path / "kept", 4 * BLOCK + 3 * BLOCK // 4)
    remove_tree(tmp_path)  # pytest removes no folder that nests too deep


def keep(kept: Artefacts, evaluation: int, blocks: int) -> Path:
    """An evaluation with a file of that size."""
    place = kept.place(evaluation)
    assert place is not None
    place.mkdir()
    (place / "opened").write_bytes(b"x" * BLOCK * blocks)
    return place


def nest(folder: Path, name: str, depth: int) -> None:
    """Folders in folders, deeper than any path can say."""
    (folder / "outbox").mkdir()
    here = os.open(folder / "outbox", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def numbers(kept: Artefacts) -> list[str]:
    return sorted(place.name for place in kept.folder.iterdir())


def test_the_newest_that_fit_are_kept(kept: Artefacts) -> None:
    for evaluation, blocks in ((1, 1), (2, 2), (10, 1)):
        keep(kept, evaluation, blocks)
    assert kept.prune() == []
    keep(kept, 11, 2)
    assert kept.prune() == [1, 2]
    assert numbers(kept) == ["10", "11"]
    assert kept.find(10).name == "10"
    with pytest.raises(InputError) as caught:
        kept.find(1)
    assert caught.value.code is Code.UNKNOWN_ID


def test_one_that_is_larger_than_all_that_may_be_kept_goes_too(kept: Artefacts) -> None:
    keep(kept, 1, 5)
    assert kept.prune() == [1]
    assert numbers(kept) == []


def test_what_an_earlier_start_left_is_gone(kept: Artefacts) -> None:
    first = keep(kept, 1, 1)
    assert kept.place(1) == first
    assert not first.exists()


def test_to_keep_nothing_makes_no_folder(tmp_path: Path) -> None:
    assert Artefacts(tmp_path / "kept", 0).place(1) is None
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(("name", "depth"), [(NAME, 40), ("d", 1500)])
def test_a_folder_that_nests_too_deep_is_removed_instead_of_kept(
    kept: Artefacts, name: str, depth: int
) -> None:
    nest(keep(kept, 1, 1), name, depth)
    keep(kept, 2, 1)
    assert kept.prune() == [1]
    assert numbers(kept) == ["2"]


def test_a_folder_that_is_closed_is_removed_instead_of_kept() -> None:
    """The worker is an ordinary user, and so was the submission, which closed what it wrote."""
    shared = Path(tempfile.mkdtemp(prefix="closed-"))  # tmp_path lets no other user in
    shared.chmod(0o777)
    prune = (
        "import os, sys; from pathlib import Path\n"
        "from harness.board.artefacts import Artefacts\n"
        "os.geteuid() or os.setuid(60_000)\n"
        "kept = Artefacts(Path(sys.argv[1]), 10**9)\n"
        "outbox = kept.place(1) / 'outbox'; outbox.mkdir(parents=True)\n"
        "(outbox / 'file').touch(); outbox.chmod(0o400)\n"
        "print(kept.prune(), os.listdir(sys.argv[1]))\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", prune, shared / "kept"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    remove_tree(shared)
    assert outcome.stdout.strip() == "[1] []", outcome.stderr


@pytest.mark.parametrize(("name", "depth"), [(NAME, 40), ("d", 1500)])
def test_a_start_after_one_that_nested_too_deep_has_a_place(
    kept: Artefacts, name: str, depth: int
) -> None:
    place = keep(kept, 1, 1)
    nest(place, name, depth)
    assert kept.place(1) == place
    assert not place.exists()


def test_what_cannot_be_removed_is_no_place(kept: Artefacts) -> None:
    kept.folder.mkdir()
    (kept.folder / "1").symlink_to(kept.folder)
    assert kept.place(1) is None
    assert numbers(kept) == ["1"]
