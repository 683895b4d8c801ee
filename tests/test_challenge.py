import numpy as np
import pytest

from harness.challenge import draw
from harness.errors import Code, InputError
from harness.hparams import LoadedHparams

CORPUS = np.arange(60_000, dtype=np.uint16)


def test_rows_are_windows_of_the_corpus_at_any_offset(loaded: LoadedHparams) -> None:
    tokens = draw(CORPUS, loaded.hparams).tokens
    assert tokens.shape[1:] == (loaded.hparams.global_batch, loaded.hparams.sequence_length)
    assert tokens.dtype == np.int32
    assert (np.diff(tokens, axis=2) == 1).all()
    assert len({int(start) % loaded.hparams.sequence_length for start in tokens[:, :, 0].flat}) > 8


def test_a_challenge_is_never_drawn_twice(loaded: LoadedHparams) -> None:
    seeds = {draw(CORPUS, loaded.hparams).seed for _ in range(20)}
    assert len(seeds) == 20


def test_the_number_of_steps_covers_its_range(loaded: LoadedHparams) -> None:
    steps = {draw(CORPUS, loaded.hparams).steps for _ in range(100)}
    assert steps == set(range(loaded.hparams.steps.min, loaded.hparams.steps.max + 1))


def test_a_stored_seed_gives_the_same_challenge_again(loaded: LoadedHparams) -> None:
    first = draw(CORPUS, loaded.hparams)
    again = draw(CORPUS, loaded.hparams, first.seed)
    assert np.array_equal(first.tokens, again.tokens)


def test_the_last_token_of_the_corpus_can_be_served(loaded: LoadedHparams) -> None:
    shortest = CORPUS[: loaded.hparams.sequence_length]
    assert (draw(shortest, loaded.hparams).tokens == shortest).all()


def test_a_corpus_shorter_than_a_row_is_bad_input(loaded: LoadedHparams) -> None:
    with pytest.raises(InputError) as caught:
        draw(CORPUS[: loaded.hparams.sequence_length - 1], loaded.hparams)
    assert caught.value.code is Code.HPARAMS_INVALID
