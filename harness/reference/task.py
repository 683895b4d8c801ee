"""What one launch of the trusted loop is asked for, and the names of the files that it reads and leaves."""

from pathlib import Path
from typing import Final, Self

from harness.benchmark.hparams import Hparams
from harness.benchmark.problem import Dtype, Optimizer
from harness.errors import Code, InputError
from harness.machine import Device
from harness.records import Record
from harness.reference.cheats.families import Cheat
from harness.tensors.boxes import Box, State, StoredPiece
from harness.tensors.shards import ShardEntry

TASK: Final = "task.json"
COORDINATES: Final = "coordinates.safetensors"
FINISHED: Final = "finished"
STATE: Final = "state"
RECORD: Final = "record.safetensors"
DIRECTIONS: Final = "directions.safetensors"
TOKEN_ROWS: Final = "token_rows.safetensors"
# Under the reference's final weights, and under each version of a submitted state.
TOKEN_LOSSES: Final = "token_losses.safetensors"
SUBMITTED_LOSSES: Final = "submitted_losses.safetensors"
REFERENCE: Final = "reference"
# How sure the reference's routers are of a token; in the file of its losses.
MARGINS: Final = "margins"
SUBMITTED: Final = "submitted"
# Below the folder of a launch: what was asked for of each run, and what came of it.
ASKED: Final = "asked"
OUTPUT: Final = "output"


class Variant(Record):
    """What may differ between two honest runs of the same benchmark; null is transformers' default.

    Attributes:
        compute_dtype: of matrix products.
        reduce_dtype: of the gradients that ranks reduce.
        state_dtype: what the optimizer's state is rounded to after every step.
        native_products: of matrix products in bfloat16, those of this CPU, however slow they are.
        near_ties: relative size of the noise that decides the router's near ties; 0 is none.
        cheats: work that is left out, for `validator power`; then the run is not honest at all.
    """

    world_size: int
    micro_batches: int
    compute_dtype: Dtype
    reduce_dtype: Dtype = "float32"
    state_dtype: Dtype = "float32"
    attention: str | None = None
    experts: str | None = None
    native_products: bool = False
    near_ties: float = 0.0
    cheats: tuple[Cheat, ...] = ()


class ReferenceTask(Record):
    """What one launch of `harness.reference.loop` reads.

    Attributes:
        model_dir: the snapshot's model folder.
        challenges: challenge files, one per run.
        trains: for each run whether it is trained; of one that was before only the submitted states are
            looked at.
        optimizers: one per run.
        coordinates: safetensors of int64 flat indices for each sampled tensor.
        output: folder that gets `run0`, `run1`, ... and at the end one marker file of each rank.
        filter_steps: for each run the steps at which directions are computed; empty for none at all.
        token_rows: safetensors of int64 row indices for each run whose tokens' losses are wanted.
        submitted: for each run a WeightFile of each version of the submitted state.
        lanes: processes that share the runs of one rank.
    """

    model_dir: Path
    challenges: tuple[Path, ...]
    trains: tuple[bool, ...]
    coordinates: Path
    output: Path
    device: Device
    param_dtype: Dtype
    optimizers: tuple[Optimizer, ...]
    variant: Variant
    filter_steps: tuple[tuple[int, ...], ...] = ()
    token_rows: Path | None = None
    submitted: tuple[tuple[Path, ...], ...] = ()
    lanes: int = 1


class WeightPiece(Record):
    """A box of one tensor of a state, in a file that the reference's ranks can read.

    Attributes:
        file, start, size: where its bytes lie.
        dtype: torch's name.
    """

    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    file: Path
    start: int
    size: int

    @classmethod
    def of(cls, stored: StoredPiece | ShardEntry) -> Self:
        """Where one that was read lies."""
        box = stored.box if isinstance(stored, StoredPiece) else Box(stored.offset, stored.shape)
        return cls(
            name=stored.name,
            offset=box.offset,
            shape=box.shape,
            dtype=stored.dtype,
            file=Path(stored.file),
            start=stored.start,
            size=stored.data.size,
        )


class WeightFile(Record):
    """A whole state."""

    pieces: tuple[WeightPiece, ...]

    @classmethod
    def of(cls, state: State) -> Self:
        """Of what is held in mapped files; pieces without elements are left out."""
        return cls(
            pieces=tuple(
                WeightPiece.of(piece)
                for pieces in state.values()
                for piece in pieces
                if piece.data.size
            )
        )


def default_variant(hparams: Hparams, world_size: int) -> Variant:
    """The reference as the benchmark asks for it. It reduces, and keeps its state, in float32."""
    return Variant(
        world_size=hparams.reference.world_size or world_size,
        micro_batches=hparams.reference.micro_batches,
        compute_dtype=hparams.numerics.compute_dtype,
    )


def check_rows(hparams: Hparams, variant: Variant) -> None:
    """Raises InputError unless every rank of the reference gets equally many rows."""
    if hparams.global_batch % variant.world_size:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"a global batch of {hparams.global_batch} rows cannot be dealt to the reference's "
            f"{variant.world_size} ranks: set reference.world_size in hparams, or use another --world",
        )
