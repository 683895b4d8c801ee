"""A run beside the reference's training of the same challenge: weights, steps, directions, losses.

Whoever trained it: a submission, a variant of the trusted loop, or one of its mistakes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.benchmark.challenge import Challenge
from harness.benchmark.problem import AdamW, Sgd
from harness.reference.outcome import ReferenceRun, TokenLosses
from harness.tensors.boxes import State, TensorSpec
from harness.verify.attribution import Attribution, attribute, gather
from harness.verify.compare import compare_states
from harness.verify.decay import decay_path, without_decay
from harness.verify.figures import StateComparison
from harness.verify.filters import Along, look_along
from harness.verify.token_losses import Sample, TokenShift, token_shift

THREADS: Final = 2


@dataclass(frozen=True)
class Truth:
    """What a run is compared with.

    Attributes:
        initial: weights before the first step.
        reference: what the trusted loop made of the same challenge.
        layout: of every tensor of the state.
        challenge: what was trained on.
        optimizer: of the benchmark; what its weight decay does alone is no part of an update.
    """

    initial: State
    reference: ReferenceRun
    layout: Mapping[str, TensorSpec]
    challenge: Challenge
    optimizer: Sgd | AdamW


@dataclass(frozen=True)
class Compared:
    """Versions of a final state beside the reference's; of all but the last two one for each version.

    Attributes:
        alongs: along the reference's directions; none where it has none.
    """

    comparisons: list[StateComparison]
    attributions: list[Attribution]
    alongs: list[tuple[Along, ...]]


def compare(truth: Truth, states: Sequence[State]) -> Compared:
    """Compare each version of a final state with the reference's, all of it and at the sampled weights."""
    reference = truth.reference
    path = decay_path(truth.optimizer, len(reference.step_updates))
    left = float(path[-1])
    steps = without_decay(reference.step_updates, reference.initial, path)
    sampled = [gather(state, reference.coordinates) for state in states]
    return Compared(
        comparisons=[
            compare_states(
                truth.initial,
                reference.state,
                state,
                truth.layout,
                THREADS,
                truth.challenge.occurrences,
                left,
            )
            for state in states
        ],
        attributions=[attribute(steps, final - left * reference.initial) for final in sampled],
        alongs=[_along(reference, final) for final in sampled if reference.directions],
    )


def _along(reference: ReferenceRun, final: npt.NDArray[np.float32]) -> tuple[Along, ...]:
    off = final - reference.final
    return look_along(reference.directions, reference.step_updates, off)


def compare_tokens(
    challenge: Challenge, sampled: TokenLosses, losses: Sequence[npt.NDArray[np.float32]]
) -> list[TokenShift]:
    """Compare losses of the sampled tokens with the reference's.

    Args:
        challenge: whose tokens they are.
        sampled: the reference's.
        losses: float32 [R, T], one for each version of a final state.
    """
    steps, batch, length = challenge.tokens.shape
    targets = challenge.tokens[:, :, 1:]
    sample = Sample(
        targets=targets.reshape(steps * batch, length - 1)[sampled.rows].astype(np.int64),
        rows=sampled.rows % batch,
        steps=sampled.rows // batch,
        global_batch=batch,
        occurrences=np.bincount(targets.ravel()),
        margins=sampled.margins,
    )
    return [token_shift(sample, sampled.reference, each) for each in losses]
