"""What the supervisor measures: the bytes of a folder, and the log that it keeps."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.sandbox.watch import Log, TooManyEntriesError, folder_bytes
from tests.project import ROOT

KIB, MIB = 2**10, 2**20


@pytest.mark.parametrize("portion", [1, 3, 7, 64, 1000])
def test_a_log_keeps_its_ends_whatever_the_portions(portion: int) -> None:
    text = "".join(f"{number:04d}" for number in range(500))
    for length in (0, 5, 63, 64, 65, 127, 128, 129, 200, 2000):
        log = Log.create(128)
        try:
            for start in range(0, length, portion):
                log.append(text[start : min(start + portion, length)].encode())
            if length <= 128:
                assert log.read() == text[:length]
            else:
                cut = f"\n[... {length - 128} bytes cut ...]\n"
                assert log.read() == text[:64] + cut + text[length - 64 : length]
        finally:
            os.close(log.file)


def test_a_folder_of_too_many_files_is_not_measured_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.sandbox.watch.MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(TooManyEntriesError):
        folder_bytes(str(tmp_path))


@pytest.mark.parametrize("closed", [".", "sub"])
def test_a_folder_that_is_closed_to_the_judge_counts_as_over_the_limit(
    closed: str,
) -> None:
    """A judge that is an ordinary user, and a submission of the same user that hides what it wrote."""
    shared = Path(tempfile.mkdtemp(prefix="closed-"))  # tmp_path lets no other user in
    outbox = shared / "outbox"
    (outbox / "sub").mkdir(parents=True)
    shared.chmod(0o755)
    (outbox / closed).chmod(0o300)
    measure = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from harness.sandbox.watch import TooManyEntriesError, folder_bytes\n"
        "os.geteuid() or os.setuid(60_000)\n"
        "try: folder_bytes(sys.argv[2])\n"
        "except TooManyEntriesError: print('refused')\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-I", "-S", "-c", measure, ROOT, outbox],
        capture_output=True,
        text=True,
        check=False,
    )
    (outbox / closed).chmod(0o755)
    shutil.rmtree(shared)
    assert outcome.stdout.strip() == "refused", outcome.stderr


def sparse(folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(17 * MIB)


def real(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).write_bytes(bytes(512 * KIB))


def links(folder: Path) -> None:
    """Out of the folder, and back into it."""
    (folder / "out").symlink_to("/usr")
    (folder / "round").symlink_to(".")
    os.mkfifo(folder / "fifo")


def below(folder: Path) -> None:
    deep = folder.joinpath(*"abcdefghijklmnop")  # 16 folders
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(bytes(MIB))


@pytest.mark.parametrize(
    ("fill", "least"),
    [(sparse, 17 * MIB), (real, MIB), (links, 0), (below, MIB)],
    ids=["sparse", "real", "links", "below"],
)
def test_a_folder_counts_what_a_reader_of_it_would_read(
    tmp_path: Path, fill: Callable[[Path], None], least: int
) -> None:
    fill(tmp_path)
    # Folders and links take a few blocks of their own.
    assert least <= folder_bytes(str(tmp_path)) <= least + 256 * KIB


def test_a_folder_that_is_nested_too_deep_is_not_measured_to_its_end(tmp_path: Path) -> None:
    tmp_path.joinpath(*"abcdefghijklmnopq").mkdir(parents=True)  # 17 folders
    with pytest.raises(TooManyEntriesError, match="deeper than 16"):
        folder_bytes(str(tmp_path))
