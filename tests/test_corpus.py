"""Attacks fail, honest files pass: `make attack` judges all of them and shows a table."""

from collections.abc import Callable

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.sandbox import Level, Sandbox, choose
from tests.corpus import CORPUS_ROW, LEVEL, Member, deserved, members, part_of, row
from tests.forked_ranks import ForkedRanks
from tests.judging import explain, judging_in

pytest_plugins = ("tests.judging",)

EVERY = members()


def test_every_file_says_what_it_is() -> None:
    """`members` has read all docstrings; what an attack tries is told once."""
    attacks = [each for each in EVERY if each.tries]
    assert len({each.tries for each in attacks}) == len(attacks)
    assert len({each.file.stem for each in EVERY}) == len(EVERY)


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_parts_are_the_whole(parts: int) -> None:
    found = [each.name for number in range(parts) for each in part_of(EVERY, f"{number}/{parts}")]
    assert sorted(found) == sorted(each.name for each in EVERY)


@pytest.fixture(scope="module")
def chosen() -> Sandbox:
    return choose(LEVEL or "auto")


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("member", part_of(EVERY), ids=lambda member: member.name)
def test_it_gets_what_it_deserves(
    member: Member,
    forked_ranks: ForkedRanks,
    chosen: Sandbox,
    quick: LoadedHparams,
    impatient: LoadedHparams,
    record_property: Callable[[str, object], None],
) -> None:
    sandbox = chosen if LEVEL or member.needs_sandbox else forked_ranks
    if member.needs_sandbox and sandbox.level is Level.NONE:
        pytest.skip("level none holds nothing back: docs/sandbox.md says so")
    if sandbox.level in member.gaps:
        pytest.skip(f"level {sandbox.level} does not hold it: docs/sandbox.md says so")
    benchmark = impatient if "timed_out" in member.expected.codes else quick
    with judging_in(sandbox) as judge:
        result = judge(member.file, benchmark, member.expected.world_size)
    record_property(CORPUS_ROW, row(member, result))
    assert deserved(member, result), explain(result)
