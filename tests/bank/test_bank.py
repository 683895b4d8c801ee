"""From filling to judging: what was trained ahead is compared with, and spent. Ranks are forked."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.api import fill_bank, judge_file
from harness.bank.fill import Filling, fill
from harness.bank.kind import kind_of, program
from harness.bank.store import ENTRY, Bank
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.errors import InputError, Verdict
from harness.evaluate import Options, evaluate
from harness.kept import write_result
from harness.phases import Phases, silent
from harness.rejudge import rejudge
from tests.forked_ranks import ForkedRanks
from tests.judging import Judge, explain
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

SINGLE = ROOT / "submissions" / "train_single.py"
SCALED = ROOT / "tests" / "submissions" / "scaled_lr.py"
PLENTY = 2**30


@pytest.fixture(scope="module")
def filling(quick: LoadedHparams, forked_ranks: ForkedRanks) -> Filling:
    return Filling(quick.hparams, preload(quick), forked_ranks, world_size=1, limit_bytes=PLENTY)


@pytest.fixture(scope="module")
def full(filling: Filling, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    bank = Bank(tmp_path_factory.mktemp("bank") / "full")
    assert fill(bank, filling, 2, silent) == 2
    return bank


@pytest.fixture
def bank(full: Bank, tmp_path: Path) -> Iterator[Bank]:
    """A copy. At the end nothing that an evaluation has taken may be left."""
    root = tmp_path / "bank"
    shutil.copytree(full._root, root)
    yield Bank(root)
    assert list((root / "taken").iterdir()) == []


def test_a_filled_bank_has_what_was_asked_for(full: Bank, filling: Filling) -> None:
    entries = full.entries(filling.kind)
    assert len(entries) == len({entry.seed for entry in entries}) == 2
    assert all(entry.steps in (4, 5) and entry.seconds > 0 for entry in entries)
    assert all(entry.size_bytes > filling.snapshot.state_bytes for entry in entries)
    assert fill(full, filling, 2, silent) == 0, "there are as many"


def test_runs_are_judged_by_what_was_trained_ahead(
    bank: Bank, quick: LoadedHparams, forked_judge: Judge
) -> None:
    seeds = {entry.seed for entry in bank.entries()}
    result = forked_judge(SINGLE, quick, 1, runs=2, bank=bank)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert [run.banked for run in result.runs] == [True, True]
    assert {run.challenge_seed for run in result.runs} == seeds
    assert bank.entries() == []
    assert all(run.measured("token_loss_shift") is not None for run in result.runs)


def test_a_wrong_file_is_rejected_by_what_was_trained_ahead(
    bank: Bank, quick: LoadedHparams, forked_judge: Judge
) -> None:
    result = forked_judge(SCALED, quick, 1, bank=bank)
    assert result.verdict is Verdict.REJECTED and result.code == "update_mismatch"
    assert [run.banked for run in result.runs] == [True]


def test_a_kept_one_is_judged_again_from_what_it_had_taken(
    bank: Bank, quick: LoadedHparams, forked_ranks: ForkedRanks, tmp_path: Path
) -> None:
    options = Options(world_size=1, runs=1, keep=tmp_path / "kept", bank=bank)
    result = evaluate(SINGLE, quick, preload(quick), forked_ranks, options, Phases(lambda *_: None))
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    write_result(tmp_path / "kept", result)
    assert rejudge(tmp_path / "kept", quick, preload(quick), silent) == result


def test_what_the_bank_lacks_is_drawn_and_trained(
    bank: Bank, quick: LoadedHparams, forked_judge: Judge
) -> None:
    result = forked_judge(SINGLE, quick, 1, runs=3, bank=bank)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert [run.banked for run in result.runs] == [True, True, False]


def test_a_full_bank_gets_no_larger(filling: Filling, tmp_path: Path) -> None:
    said: list[str] = []
    small = replace(filling, limit_bytes=filling.snapshot.state_bytes - 1)
    assert fill(Bank(tmp_path), small, 2, said.append) == 0
    assert said == ["the bank is full: it has 0.00 GiB"]


def test_entries_that_other_code_has_made_make_room(bank: Bank, filling: Filling) -> None:
    """Nobody can take them any more."""
    for entry in bank.entries():
        file = bank._unused / entry.id / ENTRY
        file.write_text(entry.model_copy(update={"kind": "x", "program": "old"}).model_dump_json())
    exact = replace(filling, limit_bytes=bank.size_bytes)
    assert fill(bank, exact, 1, silent) == 1
    assert [entry.program for entry in bank.entries()] == [program()]


def test_at_level_none_no_bank_is_filled_and_nothing_is_judged_beside_one(
    bank: Bank, quick: LoadedHparams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a train file can read what lies in it, for a later evaluation."""
    monkeypatch.setenv("TRAINJUDGE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="at level none no bank is used"):
        fill_bank(quick.path, None, "none", None, 1, 1, PLENTY, idle=False)
    with pytest.raises(InputError, match="challenges that are still to come"):
        judge_file(SINGLE, hparams=quick.path, world_size=1, sandbox="none", quiet=True)


def test_a_damaged_entry_is_our_fault_and_is_spent(
    bank: Bank, quick: LoadedHparams, forked_judge: Judge
) -> None:
    for entry in bank.entries():
        name = next(name for name in entry.digests if name.endswith("record.safetensors"))
        file = bank._unused / entry.id / name
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    result = forked_judge(SINGLE, quick, 1, bank=bank)
    assert result.verdict is Verdict.ERROR and "is damaged" in result.message
    assert len(bank.entries()) == 1


def test_an_entry_of_another_challenge_is_not_judged_with(
    bank: Bank, quick: LoadedHparams, forked_judge: Judge
) -> None:
    """As where another numpy draws other numbers from a seed."""
    for entry in bank.entries():
        file = bank._unused / entry.id / ENTRY
        file.write_text(entry.model_copy(update={"tokens_sha256": "0" * 64}).model_dump_json())
    result = forked_judge(SINGLE, quick, 1, bank=bank)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert not result.runs[0].banked and len(bank.entries()) == 1
    assert any("of another challenge" in warning for warning in result.warnings)


def test_a_bank_that_cannot_be_used_is_a_warning(
    bank: Bank, quick: LoadedHparams, forked_judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(bank, "take", fails)
    result = forked_judge(SINGLE, quick, 1, bank=bank)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert any("the bank could not be used" in warning for warning in result.warnings)


def test_only_what_would_have_been_made_alike_may_be_taken(
    filling: Filling, quick: LoadedHparams
) -> None:
    def kind(world_size: int = 1, **changes: object) -> str:
        hparams = quick.hparams.model_copy(update=changes)
        return kind_of(hparams, filling.snapshot, filling.sandbox, world_size, "cpu")

    verify = quick.hparams.verify
    wider = verify.model_copy(
        update={"tolerances": verify.tolerances.model_copy(update={"loss": 9.0})}
    )
    assert kind() == filling.kind == kind(verify=wider)
    others = {
        kind(2) if quick.hparams.reference.world_size is None else kind(sequence_length=32),
        kind(global_batch=4),
        kind(sequence_length=65),
        kind(verify=verify.model_copy(update={"attribution_samples": 100})),
        kind(verify=verify.model_copy(update={"token_loss_share": 0.25})),
    }
    assert len(others) == 5 and kind() not in others
