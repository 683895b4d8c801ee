"""What a launch of the trusted loop leaves: final states, losses, and the steps of sampled coordinates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from harness.benchmark.snapshot import Snapshot
from harness.reference.task import (
    COORDINATES,
    RECORD,
    REFERENCE,
    STATE,
    SUBMITTED,
    TOKEN_LOSSES,
    TOKEN_ROWS,
)
from harness.tensors.boxes import State
from harness.tensors.stored import trusted_state
from harness.verify.attribution import Coordinates, Indices


@dataclass(frozen=True)
class TokenLosses:
    """Losses of sampled tokens, in float32, nats.

    Attributes:
        rows: int64 [R], the rows of all steps counted through.
        reference: float32 [R, T], under the reference's final weights.
        submitted: float32 [R, T], one for each version of the submitted state.
    """

    rows: Indices
    reference: npt.NDArray[np.float32]
    submitted: tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True)
class ReferenceRun:
    """What the reference found for one challenge.

    Attributes:
        state: the final state.
        losses: float32 [steps, global_batch], mean cross-entropy of each row before each step, nats.
        step_updates: float64 [steps, samples], change of the sampled coordinates in each step.
        initial: float64 [samples], their values before the first step.
        token_losses: None where they were not asked for.
    """

    state: State
    losses: npt.NDArray[np.float32]
    step_updates: npt.NDArray[np.float64]
    initial: npt.NDArray[np.float64]
    token_losses: TokenLosses | None = None


def read_reference(
    snapshot: Snapshot, folder: Path, runs: int
) -> tuple[Coordinates, list[ReferenceRun]]:
    """What a launch in `folder` has left, for as long as the folder is there: also a kept one."""
    coordinates = load_file(folder / "inbox" / COORDINATES)
    asked = folder / "inbox" / TOKEN_ROWS
    rows = load_file(asked) if asked.is_file() else {}
    found = [
        _read(snapshot, folder / "output" / f"run{run}", rows.get(f"run{run}"))
        for run in range(runs)
    ]
    return coordinates, found


def _read(snapshot: Snapshot, folder: Path, rows: Indices | None) -> ReferenceRun:
    record = load_file(folder / RECORD)
    values = record["values"].astype(np.float64)
    return ReferenceRun(
        state=trusted_state(folder / STATE, snapshot.layout),
        losses=record["losses"],
        step_updates=np.diff(values, axis=0),
        initial=values[0],
        token_losses=None if rows is None else _read_token_losses(folder / TOKEN_LOSSES, rows),
    )


def _read_token_losses(file: Path, rows: Indices) -> TokenLosses:
    found = load_file(file)
    versions = [found[f"{SUBMITTED}{number}"] for number in range(len(found) - 1)]
    return TokenLosses(rows, found[REFERENCE], tuple(versions))
