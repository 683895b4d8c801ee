"""What is drawn when the clock starts: from the whole corpus, unforeseeable, and again from its seed."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

from harness.benchmark.challenge import Challenge, draw
from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.problem import Steps
from harness.errors import Code, InputError

CORPUS = np.arange(60_000, dtype=np.uint16)
LENGTH = 10


@pytest.fixture
def small(loaded: LoadedHparams) -> Hparams:
    """Rows of 10 tokens, 4 rows a step, 3 to 6 steps: what is drawn of it is drawn often."""
    steps = Steps(min=3, max=6)
    return loaded.hparams.model_copy(
        update={"sequence_length": LENGTH, "global_batch": 4, "steps": steps}
    )


@pytest.fixture
def umask() -> Iterator[None]:
    """The umask of a careful administrator."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def starts(challenge: Challenge) -> list[int]:
    """Where the windows begin, in a corpus whose tokens are their own positions."""
    return [int(start) for start in challenge.tokens[:, :, 0].flat]


# --- rows -------------------------------------------------------------------------------------


def test_rows_are_windows_of_the_corpus_at_any_offset(loaded: LoadedHparams) -> None:
    challenge = draw(CORPUS, loaded.hparams)
    assert challenge.tokens.shape[1:] == (8, 256)
    assert challenge.tokens.dtype == np.int32
    assert (np.diff(challenge.tokens, axis=2) == 1).all()
    assert len({start % 256 for start in starts(challenge)}) > 8


def test_a_window_may_begin_anywhere_from_the_first_token_to_the_last_that_leaves_a_row(
    small: Hparams,
) -> None:
    corpus = CORPUS[: LENGTH + 4]
    found = [start for _ in range(40) for start in starts(draw(corpus, small))]
    assert set(found) == {0, 1, 2, 3, 4}
    # 480 draws at least, 96 expected of each.
    assert min(found.count(start) for start in range(5)) > 30


def test_no_part_of_the_corpus_is_left_out(small: Hparams) -> None:
    """A submission that knows which half is served could prepare for it."""
    found = np.array([start for _ in range(40) for start in starts(draw(CORPUS, small))])
    counts, _ = np.histogram(found, bins=10, range=(0, 60_000))
    # 480 draws at least, 48 expected in each tenth.
    assert counts.min() > 5


def test_rows_of_a_step_and_steps_of_a_run_differ(small: Hparams) -> None:
    for _ in range(5):
        found = starts(draw(CORPUS, small))
        assert len(set(found)) > len(found) - 3


def test_the_last_token_of_the_corpus_can_be_served(small: Hparams) -> None:
    shortest = CORPUS[:LENGTH]
    assert (draw(shortest, small).tokens == shortest).all()


def test_a_corpus_shorter_than_a_row_is_bad_input(small: Hparams) -> None:
    with pytest.raises(InputError, match="9 tokens: too few for one row of 10") as caught:
        draw(CORPUS[: LENGTH - 1], small)
    assert caught.value.code is Code.HPARAMS_INVALID


def test_the_number_of_steps_covers_its_range(small: Hparams) -> None:
    # A value is missed with a probability of 4 · 0.75^150, 1e-18.
    assert {draw(CORPUS, small).steps for _ in range(150)} == {3, 4, 5, 6}


# --- secret, and again ------------------------------------------------------------------------


def test_all_128_bits_of_a_seed_are_secret(small: Hparams) -> None:
    """A seed of fewer bits could be tried through before the clock starts."""
    seeds = [draw(CORPUS, small).seed for _ in range(80)]
    assert len(set(seeds)) == 80
    assert {len(seed) for seed in seeds} == {32}
    numbers = [int(seed, 16) for seed in seeds]
    # A bit keeps one value over 80 seeds with a probability of 2^-79.
    for bit in range(128):
        assert {number >> bit & 1 for number in numbers} == {0, 1}, bit


def test_a_seed_does_not_come_from_a_generator_that_can_be_set(small: Hparams) -> None:
    def seeded() -> str:
        random.seed(1)
        np.random.seed(1)
        return draw(CORPUS, small).seed

    assert len({seeded() for _ in range(4)}) == 4


@pytest.mark.parametrize("bit", [0, 63, 64, 127])
def test_every_bit_of_the_seed_changes_the_rows(small: Hparams, bit: int) -> None:
    seed = 0x0123456789ABCDEF0123456789ABCDEF
    first, second = (draw(CORPUS, small, f"{it:032x}") for it in (seed, seed ^ 1 << bit))
    assert not set(starts(first)) & set(starts(second))


def test_a_stored_seed_gives_the_same_challenge_again(loaded: LoadedHparams) -> None:
    first = draw(CORPUS, loaded.hparams)
    again = draw(CORPUS, loaded.hparams, first.seed)
    assert again.seed == first.seed
    assert np.array_equal(first.tokens, again.tokens)


def test_a_stored_seed_means_the_same_challenge_in_every_version(small: Hparams) -> None:
    """Pinned: a result of today has to be judged again by tomorrow's code."""
    challenge = draw(CORPUS, small, "0123456789abcdef0123456789abcdef")
    assert starts(challenge) == [
        *(9545, 1711, 35867, 2023),
        *(55804, 8794, 27959, 38886),
        *(44421, 55235, 7366, 20473),
    ]


# --- what is counted and written ----------------------------------------------------------------


def tokens(*steps: list[list[int]]) -> npt.NDArray[np.int32]:
    return np.array(steps, dtype=np.int32)


def test_a_last_token_of_a_row_is_a_label_and_not_looked_up() -> None:
    challenge = Challenge("00", tokens([[1, 1, 4], [0, 1, 3]], [[3, 0, 5], [1, 3, 0]]))
    # Looked up: 1 1, 0 1, 3 0, 1 3. The labels 4 and 5 occur nowhere else.
    assert challenge.occurrences.tolist() == [2, 4, 0, 2]
    assert (challenge.steps, challenge.token_count) == (2, 12)


def test_a_challenge_is_written_for_ranks_of_another_user(tmp_path: Path, umask: None) -> None:
    challenge = Challenge("00", tokens([[1, 2]], [[3, 4]]))
    challenge.write(tmp_path / "challenge")
    assert (tmp_path / "challenge").stat().st_mode & 0o777 == 0o644
    written = load_file(tmp_path / "challenge")
    assert list(written) == ["tokens"]
    assert written["tokens"].dtype == np.int32
    assert np.array_equal(written["tokens"], challenge.tokens)
