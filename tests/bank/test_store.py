"""The folder of a bank: each entry is taken once, and what a killed judge had taken is gone."""

import os
import threading
from pathlib import Path

import pytest

from harness.bank.store import ENTRY, Bank
from harness.errors import Code, InputError, JudgeError
from harness.reference.outcome import RunFolders
from tests.bank.made_up import put


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "bank")


def test_an_empty_bank_has_nothing_and_makes_no_folder(bank: Bank, tmp_path: Path) -> None:
    assert bank.entries() == [] and bank.size_bytes == 0
    assert bank.take("k") is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_added_is_there_with_its_size(bank: Bank, tmp_path: Path) -> None:
    entry = put(bank, tmp_path, "one")
    assert entry.size_bytes == 12
    assert bank.entries() == [entry] == bank.entries("k")
    assert bank.entries("other") == []
    assert bank.size_bytes == 12
    assert (tmp_path / "made-one" / "state" / "weights").is_file(), "it was copied"


def test_nobody_else_may_look_into_it(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir(mode=0o755)
    put(bank, tmp_path, "one")
    for folder in (tmp_path / "bank", tmp_path / "bank" / "unused" / "one"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_oldest_come_first(bank: Bank, tmp_path: Path) -> None:
    put(bank, tmp_path, "late", made_at="2026-02-01")
    put(bank, tmp_path, "early", made_at="2026-01-01")
    assert [entry.id for entry in bank.entries()] == ["early", "late"]


def test_an_entry_is_taken_once_and_its_files_are_there(bank: Bank, tmp_path: Path) -> None:
    entry = put(bank, tmp_path, "one")
    assert bank.take("other") is None
    taken = bank.take("k")
    assert taken is not None and taken.entry == entry
    taken.check()
    folders = taken.reference
    assert (folders.asked / "coordinates").read_bytes() == b"12345"
    assert (folders.made / "state" / "weights").read_bytes() == b"1234567"
    assert bank.take("k") is None and bank.entries() == []
    assert bank.size_bytes == 12, "it needs its room until it is removed"
    taken.remove()
    assert bank.size_bytes == 0


def test_a_file_that_has_changed_is_noticed(bank: Bank, tmp_path: Path) -> None:
    put(bank, tmp_path, "one")
    taken = bank.take("k")
    assert taken is not None
    (taken.reference.made / "state" / "weights").write_bytes(b"1234568")
    with pytest.raises(JudgeError, match="is damaged"):
        taken.check()


def test_what_is_kept_lies_elsewhere_and_is_not_removed(bank: Bank, tmp_path: Path) -> None:
    put(bank, tmp_path, "one")
    taken = bank.take("k")
    assert taken is not None
    kept = taken.moved(tmp_path / "kept" / "0")
    taken.remove()
    assert (kept.asked / "coordinates").read_bytes() == b"12345"
    assert not taken.folder.exists()


def test_two_that_take_at_once_never_have_the_same(bank: Bank, tmp_path: Path) -> None:
    for number in range(20):
        put(bank, tmp_path, f"entry{number}")
    found: list[str] = []

    def take() -> None:
        while (taken := bank.take("k")) is not None:
            found.append(taken.entry.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"entry{number}" for number in range(20))


def test_they_are_taken_in_no_order(bank: Bank, tmp_path: Path) -> None:
    """Of 20 the first three are the oldest three once in 6,840 times."""
    for number in range(20):
        put(bank, tmp_path, f"entry{number:02}", made_at=f"2026-01-{number + 1:02}")
    taken = [bank.take("k") for _ in range(3)]
    assert [each and each.entry.id for each in taken] != ["entry00", "entry01", "entry02"]


def test_what_a_killed_judge_had_taken_or_half_made_is_removed_and_a_living_ones_stays(
    bank: Bank, tmp_path: Path
) -> None:
    for name in ("dead", "mine"):
        put(bank, tmp_path, name, kind=name)
    dead, mine = bank.take("dead"), bank.take("mine")
    assert dead is not None and mine is not None
    os.close(dead.lock)  # as the kernel does for a process that was killed
    half = tmp_path / "bank" / "making" / "half"
    half.mkdir()
    bank.drop([])
    assert not dead.folder.exists() and not half.exists()
    assert mine.folder.is_dir()
    mine.remove()


def test_what_is_no_entry_is_passed_over(bank: Bank, tmp_path: Path) -> None:
    put(bank, tmp_path, "one")
    unused = tmp_path / "bank" / "unused"
    (unused / "empty").mkdir()
    (unused / "half").mkdir()
    (unused / "half" / ENTRY).write_text('{"id": "half"}')
    (unused / "one").rename(unused / "renamed")
    assert bank.entries() == [] and bank.take("k") is None


def test_an_entry_that_could_not_be_copied_is_not_there(bank: Bank, tmp_path: Path) -> None:
    entry = put(bank, tmp_path, "one")
    missing = RunFolders(tmp_path / "asked-one", tmp_path / "nowhere", tmp_path / "nowhere")
    with pytest.raises(JudgeError, match="nothing can be put into the bank") as caught:
        bank.add(entry.model_copy(update={"id": "two"}), missing)
    assert caught.value.code is Code.INTERNAL
    assert [each.id for each in bank.entries()] == ["one"]
    assert list((tmp_path / "bank" / "making").iterdir()) == []


def test_unused_ones_can_be_dropped_and_others_not(bank: Bank, tmp_path: Path) -> None:
    one, two = put(bank, tmp_path, "one"), put(bank, tmp_path, "two")
    with pytest.raises(InputError, match=r"no entry three, \.\./two") as caught:
        bank.drop(["one", "three", "../two"])
    assert caught.value.code is Code.BAD_ARGUMENT
    assert len(bank.entries()) == 2
    assert bank.drop(["one", "one"]) == [one]
    assert bank.entries() == [two]
