"""A snapshot through a folder that is not trusted: nothing is used before every hash is right."""

from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.manifest import MANIFEST
from harness.benchmark.snapshot import Snapshot, default_directory
from harness.errors import Code, InputError, JudgeError
from harness.fleet.snapshots import fetch, share
from harness.phases import silent
from tests.project import Edit


@pytest.fixture
def address(snapshot: Snapshot, tmp_path: Path) -> str:
    return share(snapshot, f"file://{tmp_path}/share", silent)


@pytest.fixture
def new_node(tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINJUDGE_HOME", str(tmp_path / "home"))


def copied(tmp_path: Path, name: str) -> Path:
    (found,) = (tmp_path / "share").glob(f"*/{name}")
    return found


@pytest.mark.usefixtures("new_node")
def test_a_node_gets_a_snapshot_once(
    address: str, loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    said: list[str] = []
    got = fetch(loaded, [address], said.append)
    assert got is not None
    assert got.directory == default_directory(loaded) != snapshot.directory
    assert got.manifest == snapshot.manifest
    assert any(line.startswith("fetching corpus/tokens.bin") for line in said)
    assert (got.directory / "corpus").stat().st_mode & 0o777 == 0o700
    again: list[str] = []
    assert fetch(loaded, [address], again.append) is not None
    assert not any(line.startswith("fetching") for line in again)


@pytest.mark.usefixtures("new_node")
@pytest.mark.parametrize("what", ["other bytes", "more bytes", "another manifest"])
def test_what_was_changed_in_the_folder_is_not_used(
    address: str, loaded: LoadedHparams, tmp_path: Path, what: str
) -> None:
    file = copied(tmp_path, MANIFEST if what == "another manifest" else "corpus/tokens.bin")
    whole = bytearray(file.read_bytes())
    if what == "more bytes":
        whole += b"\0"
    else:
        whole[-2] ^= 1
    file.write_bytes(whole)
    with pytest.raises(InputError) as caught:
        fetch(loaded, [address], silent)
    assert caught.value.code is Code.SNAPSHOT_CHANGED
    assert not default_directory(loaded).exists()


@pytest.mark.usefixtures("new_node")
def test_what_is_missing_in_the_folder_is_our_failure(
    address: str, loaded: LoadedHparams, tmp_path: Path
) -> None:
    copied(tmp_path, "model/config.json").unlink()
    with pytest.raises(JudgeError) as caught:
        fetch(loaded, [address], silent)
    assert caught.value.code is Code.DOWNLOAD_FAILED
    assert not default_directory(loaded).exists()


@pytest.mark.usefixtures("new_node")
def test_the_address_of_another_benchmark_is_passed_over(address: str, edited: Edit) -> None:
    assert fetch(edited({"numerics.param_dtype": "bfloat16"}), [address], silent) is None


def test_an_address_without_a_hash_is_none(loaded: LoadedHparams) -> None:
    with pytest.raises(InputError, match="is no address of a snapshot"):
        fetch(loaded, ["file:///mnt/share/snapshot"], silent)


def test_a_file_system_that_nobody_knows_is_the_caller_s_mistake(loaded: LoadedHparams) -> None:
    with pytest.raises(InputError, match="no folder that can be reached"):
        fetch(loaded, [f"nonsense://share/snapshot#sha256={'0' * 64}"], silent)
