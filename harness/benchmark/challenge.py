"""The challenge of one run: which windows of the corpus, and how many steps, drawn when the clock starts.

A window begins at any token of the corpus, so nobody has seen it before, and the corpus itself is not
readable in a sandbox. All of a challenge follows from its seed, which the result keeps: the same run
can be judged again.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from harness.benchmark.hparams import Hparams
from harness.errors import Code, InputError
from harness.files import make_readable

SEED_BITS = 128


@dataclass(frozen=True)
class Challenge:
    """Rows of every step of one run.

    Attributes:
        seed: everything below follows from it, hex.
        tokens: int32 [steps, global_batch, sequence_length].
    """

    seed: str
    tokens: npt.NDArray[np.int32]

    @property
    def steps(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def token_count(self) -> int:
        """Tokens of the run over all ranks: what the judge serves, and what MFU counts."""
        return int(self.tokens.size)

    @property
    def occurrences(self) -> npt.NDArray[np.int64]:
        """int64 [largest token + 1]: how often each token is looked up. A row's last is only a label."""
        return np.bincount(self.tokens[:, :, :-1].ravel())

    def write(self, path: Path) -> None:
        """As safetensors with the one tensor `tokens`."""
        save_file({"tokens": self.tokens}, path)
        make_readable(path)


def draw(corpus: npt.NDArray[np.unsignedinteger], hparams: Hparams, seed: str = "") -> Challenge:
    """A new challenge, or the one that `seed` stands for.

    Args:
        corpus: the packed tokens, 1-D.
        hparams: gives the range of steps, the global batch and the sequence length.
        seed: hex of an earlier challenge; a fresh secret where empty.

    Raises:
        InputError: the corpus is shorter than one window.
    """
    length = hparams.sequence_length
    if len(corpus) < length:
        raise InputError(
            Code.HPARAMS_INVALID,
            f"the corpus has {len(corpus)} tokens: too few for one row of {length}",
        )
    seed = seed or f"{secrets.randbits(SEED_BITS):032x}"
    generator = np.random.Generator(np.random.Philox(int(seed, 16)))
    steps = int(generator.integers(hparams.steps.min, hparams.steps.max, endpoint=True))
    starts = generator.integers(
        0, len(corpus) - length, endpoint=True, size=(steps, hparams.global_batch)
    )
    windows = np.lib.stride_tricks.sliding_window_view(corpus, length)
    return Challenge(seed=seed, tokens=windows[starts].astype(np.int32))
