"""What a submission reads: an iterator over its rows of each step."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file


class Rows:
    """Yields the rows of one dp rank, step by step, then stops.

    Each item is an int64 CPU tensor [global_batch / dp_size, sequence_length]. Labels are the same
    tokens shifted by one, as in `batch[:, :-1]` and `batch[:, 1:]`.
    """

    def __init__(self, tokens: torch.Tensor, dp_rank: int, dp_size: int) -> None:
        """`tokens` is an integer tensor [steps, global_batch, sequence_length]."""
        rows = tokens.shape[1] // dp_size
        self._tokens = tokens[:, dp_rank * rows : (dp_rank + 1) * rows]
        self._step = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        if self._step >= len(self._tokens):
            # Whoever reads ahead sees this in a traceback.
            raise StopIteration(f"all {len(self._tokens)} batches of this run were served")
        batch = self._tokens[self._step].long()
        self._step += 1
        return batch


def challenge_tokens(file: Path) -> torch.Tensor:
    """The tokens of a challenge, int32 [steps, global_batch, sequence_length], memory-mapped."""
    tokens: torch.Tensor = load_file(file)["tokens"]
    return tokens


def random_tokens(steps: int, rows: int, sequence_length: int, vocab_size: int) -> torch.Tensor:
    """Tokens for the warm-up, the same on every rank: nothing of the benchmark's data is in them."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        vocab_size, (steps, rows, sequence_length), generator=generator, dtype=torch.int32
    )
