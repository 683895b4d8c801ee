"""Which rows a rank trains on, in which order, and where those of the warm-up come from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from env.data import Rows, challenge_tokens, random_tokens
from harness.benchmark.challenge import Challenge


def numbered() -> torch.Tensor:
    """int32 [3 steps, 4 rows, 2 tokens]: hundreds tell the step, tens the row, units the place."""
    return torch.tensor(
        [
            [[0, 1], [10, 11], [20, 21], [30, 31]],
            [[100, 101], [110, 111], [120, 121], [130, 131]],
            [[200, 201], [210, 211], [220, 221], [230, 231]],
        ],
        dtype=torch.int32,
    )


@pytest.mark.parametrize(
    ("dp_rank", "dp_size", "first_step", "last_step"),
    [
        (0, 1, [0, 10, 20, 30], [200, 210, 220, 230]),
        (0, 2, [0, 10], [200, 210]),
        (1, 2, [20, 30], [220, 230]),
        (0, 4, [0], [200]),
        (2, 4, [20], [220]),
        (3, 4, [30], [230]),
    ],
)
def test_a_dp_rank_gets_its_block_of_every_step_in_order(
    dp_rank: int, dp_size: int, first_step: list[int], last_step: list[int]
) -> None:
    steps = list(Rows(numbered(), dp_rank, dp_size))
    assert [step[:, 0].tolist() for step in steps] == [
        first_step,
        [row + 100 for row in first_step],
        last_step,
    ]
    assert steps[0][:, 1].tolist() == [row + 1 for row in first_step]


def test_rows_can_be_fed_to_an_embedding_and_changed_without_changing_the_next_rank_s() -> None:
    """int64 on the CPU, and a copy: the challenge itself is mapped from a file."""
    tokens = numbered()
    batch = next(Rows(tokens, 0, 2))
    assert (batch.dtype, batch.device.type, tuple(batch.shape)) == (torch.int64, "cpu", (2, 2))
    batch.zero_()
    assert torch.equal(tokens, numbered())


def test_rows_are_an_iterator_that_ends_after_the_last_step_and_stays_ended() -> None:
    rows = Rows(numbered(), 1, 2)
    assert iter(rows) is rows
    assert next(rows)[0, 0] == 20
    assert [batch[0, 0].item() for batch in rows] == [120, 220]
    for _ in range(2):
        with pytest.raises(StopIteration, match="all 3 batches of this run were served"):
            next(rows)


def test_a_rank_reads_from_the_file_what_the_judge_drew(tmp_path: Path) -> None:
    drawn = Challenge("00", numbered().numpy().astype(np.int32))
    drawn.write(tmp_path / "challenge")
    read = challenge_tokens(tmp_path / "challenge")
    assert read.dtype == torch.int32
    assert torch.equal(read, numbered())


def test_warm_up_tokens_are_the_same_on_every_rank_and_of_the_whole_vocabulary() -> None:
    first = random_tokens(5, 7, 11, 13)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(random_tokens(5, 7, 11, 13), first)
    # The generator that the submission's own dropout uses is where it was.
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.dtype, tuple(first.shape)) == (torch.int32, (5, 7, 11))
    assert first.unique().tolist() == list(range(13))
