"""What a launch of the trusted loop leaves: final states, losses, and the steps of sampled coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from harness.benchmark.snapshot import Snapshot
from harness.reference.directions import FILTERS
from harness.reference.task import (
    ASKED,
    COORDINATES,
    DIRECTIONS,
    MARGINS,
    OUTPUT,
    RECORD,
    REFERENCE,
    STATE,
    SUBMITTED,
    SUBMITTED_LOSSES,
    TOKEN_LOSSES,
    TOKEN_ROWS,
)
from harness.tensors.boxes import State
from harness.tensors.stored import trusted_state
from harness.verify.attribution import Coordinates, Indices

#: The one tensor of a run's file of rows.
ROWS: Final = "rows"


@dataclass(frozen=True)
class TokenLosses:
    """Losses of sampled tokens, in float32, nats.

    Attributes:
        rows: int64 [R], the rows of all steps counted through.
        reference: float32 [R, T], under the reference's final weights.
        submitted: float32 [R, T], one for each version of the submitted state.
        margins: float32 [R, T], how sure the reference's routers are of each token's first expert: its
            logit less the second's, mean over layers; None where there are no routers.
    """

    rows: Indices
    reference: npt.NDArray[np.float32]
    submitted: tuple[npt.NDArray[np.float32], ...]
    margins: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ReferenceRun:
    """What the reference found for one challenge.

    Attributes:
        coordinates: those that were recorded.
        state: the final state.
        losses: float32 [steps, global_batch], mean cross-entropy of each row before each step, nats.
        step_updates: float64 [steps, samples], change of the sampled coordinates in each step.
        initial: float64 [samples], their values before the first step.
        directions: float32 [steps looked at, samples] by what would have been left out; empty where none
            was asked for.
        token_losses: None where they were not asked for.
        ahead: it was trained before the run that it is compared with.
    """

    coordinates: Coordinates
    state: State
    losses: npt.NDArray[np.float32]
    step_updates: npt.NDArray[np.float64]
    initial: npt.NDArray[np.float64]
    directions: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    token_losses: TokenLosses | None = None
    ahead: bool = False

    @property
    def final(self) -> npt.NDArray[np.float64]:
        """float64 [samples], values of the sampled coordinates after the last step."""
        final: npt.NDArray[np.float64] = self.initial + self.step_updates.sum(axis=0)
        return final


@dataclass(frozen=True)
class RunFolders:
    """Where one run's reference lies.

    Attributes:
        asked: the judge's own: which coordinates were recorded, and of which rows tokens' losses are there.
        made: what the trusted loop wrote: final state, record, losses under its own final weights.
        submitted: what a launch beside a submission wrote: losses under submitted weights.
    """

    asked: Path
    made: Path
    submitted: Path

    @classmethod
    def of_launch(cls, folder: Path, run: int) -> Self:
        """Of a run that was trained in the launch that has this folder."""
        output = folder / OUTPUT / f"run{run}"
        return cls(folder / ASKED / f"run{run}", output, output)

    @classmethod
    def of_entry(cls, folder: Path) -> Self:
        """Of a run that was trained ahead; nothing of a submission is there."""
        made = folder / OUTPUT
        return cls(folder / ASKED, made, made)


@dataclass(frozen=True)
class Ahead:
    """References that were trained before.

    Attributes:
        folders: by the number of the run.
        seconds: that one of them took; 0 where there is none.
    """

    folders: Mapping[int, RunFolders]
    seconds: float = 0.0


def read_run(snapshot: Snapshot, folders: RunFolders) -> ReferenceRun:
    """What lies there, for as long as it does."""
    record = load_file(folders.made / RECORD)
    values = record["values"].astype(np.float64)
    return ReferenceRun(
        coordinates=load_file(folders.asked / COORDINATES),
        state=trusted_state(folders.made / STATE, snapshot.layout),
        losses=record["losses"],
        step_updates=np.diff(values, axis=0),
        initial=values[0],
        directions=_read_directions(folders),
        token_losses=_read_token_losses(folders),
        ahead=folders.made != folders.submitted,
    )


def _read_directions(folders: RunFolders) -> dict[str, npt.NDArray[np.float32]]:
    """Those of today: an evaluation that was kept may have had others, which say something else."""
    file = folders.made / DIRECTIONS
    found = load_file(file) if file.is_file() else {}
    return {words: each for words, each in found.items() if words in FILTERS and each.ndim == 2}


def asked_rows(folders: RunFolders) -> Indices:
    """int64 [R], the rows of all steps counted through, whose tokens' losses were asked for."""
    rows: Indices = load_file(folders.asked / TOKEN_ROWS)[ROWS]
    return rows


def _read_token_losses(folders: RunFolders) -> TokenLosses | None:
    if not (folders.asked / TOKEN_ROWS).is_file():
        return None
    submitted = folders.submitted / SUBMITTED_LOSSES
    found = load_file(submitted) if submitted.is_file() else {}
    own = load_file(folders.made / TOKEN_LOSSES)
    return TokenLosses(
        asked_rows(folders),
        own[REFERENCE],
        tuple(found[f"{SUBMITTED}{number}"] for number in range(len(found))),
        own.get(MARGINS),
    )
