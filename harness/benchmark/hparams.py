"""hparams.json: the benchmark, as one validated, immutable value.

A benchmark is the same problem for every strategy: model, data, global batch, optimizer and steps are
fixed here (`problem`), and so are the tolerances with the evidence they come from (`rules`). Unknown keys
are errors, so a misspelt tolerance cannot silently be a default.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.benchmark.at_hand import file_of
from harness.benchmark.problem import (
    EmbeddedData,
    EmbeddedModel,
    HubData,
    HubModel,
    LocalModel,
    Numerics,
    Optimizer,
    Reference,
    Section,
    Steps,
    World,
)
from harness.benchmark.rules import Limits, Mfu, Together, Verify
from harness.errors import Code, InputError
from harness.paths import DEFAULT_HPARAMS
from harness.protocol.text import one_line

MAX_FILE_BYTES = 4 * 2**20
#: A rank that has imported torch and transformers, and nothing more.
RANK_BYTES = 256 * 2**20
#: Of a run, at which directions are computed, where a benchmark does not say how many.
FILTER_STEPS = 2
#: Of the embedding rows that a run trains, so many are turned by more than nine tenths in honest runs below
#: float32, where near ties fall otherwise in most runs: one in 60,000 was measured, and this is the upper
#: bound at 95 % (docs/noise.md).
TURNED_ROWS = 8e-5


class Hparams(Section):
    """The whole file."""

    schema_version: Literal[1] = Field(description="of this form of file")
    name: str = Field(
        pattern=r"^[\w.-]{1,64}$",
        description="letters, digits, dot, hyphen, underscore; 64 at most",
    )
    model: EmbeddedModel | HubModel | LocalModel = Field(
        discriminator="source", description="what is trained"
    )
    data: EmbeddedData | HubData = Field(
        discriminator="source", description="what it is trained on, packed without padding"
    )
    sequence_length: int = Field(ge=8, le=2**20, description="tokens in a row")
    global_batch: int = Field(ge=1, le=2**20, description="rows of one step over all dp ranks")
    steps: Steps = Field(description="of a timed run")
    warmup_steps: int = Field(
        default=2,
        ge=0,
        le=100,
        description="before the clock, on random tokens: compilers and caches",
    )
    evaluation_runs: int = Field(
        default=2,
        ge=1,
        le=100,
        description="timed runs, each with its own data; the score is their median, and cheats have to "
        "pass all of them",
    )
    world: World = Field(description="ranks")
    optimizer: Optimizer = Field(description="what a step is")
    numerics: Numerics = Field(description="which precisions are honest")
    reference: Reference = Field(default=Reference(), description="the judge's own training")
    verify: Verify = Field(description="the comparison")
    mfu: Mfu = Field(default=Mfu(), description="the score")
    limits: Limits = Field(default=Limits(), description="of the sandbox")

    @model_validator(mode="after")
    def _reference_divides_the_batch(self) -> Self:
        ranks = self.reference.world_size or self.world.size
        if self.global_batch % (ranks * self.reference.micro_batches):
            raise ValueError(
                f"the reference cannot deal global_batch {self.global_batch} evenly to {ranks} ranks "
                f"in {self.reference.micro_batches} micro-batches"
            )
        return self

    @model_validator(mode="after")
    def _ranks_have_room(self) -> Self:
        ranks = self.world.ranks_per_node
        needed = ranks * RANK_BYTES
        if self.limits.memory_bytes < needed:
            raise ValueError(
                f"limits.memory_bytes is {self.limits.memory_bytes:,}, and {ranks} rank(s) of "
                f"torch need {needed:,} before there is a model"
            )
        return self

    def noise_sha256(self) -> str:
        """Hash of the fields that shape the noise of an honest run: a calibration is for one of them.

        A field at its default does not enter, so a new one leaves old calibrations valid.
        """
        shaping = self.model_dump(
            mode="json",
            exclude_defaults=True,
            include={
                "model", "data", "sequence_length", "global_batch", "steps", "optimizer", "numerics",
                "reference",
            },
        )  # fmt: skip
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()

    @property
    def filter_steps(self) -> int:
        """At how many steps of a run directions are computed, where the benchmark is calibrated for it."""
        wanted = self.verify.filter_steps
        if wanted is None:
            return 0 if self.numerics.all_float32 else FILTER_STEPS
        return wanted

    @property
    def turned_rows(self) -> float:
        """Part of the embedding rows that honest runs turn away from the reference's update."""
        return 0.0 if self.numerics.all_float32 else TURNED_ROWS

    @property
    def together(self) -> Together:
        """What the runs of an evaluation have to meet together: nothing, unless it was measured here."""
        calibration = self.verify.calibration
        if calibration is None or not self.calibrated:
            return Together()
        return Together(
            strict_update_error=calibration.strict_update_error,
            means={name: fit.bound for name, fit in calibration.means.items()},
            fewest_runs=max((fit.mean_of for fit in calibration.means.values()), default=2),
        )

    @property
    def calibrated(self) -> bool:
        """Whether the tolerances were measured on this very benchmark."""
        calibration = self.verify.calibration
        return calibration is not None and calibration.benchmark_sha256 == self.noise_sha256()


class LoadedHparams(BaseModel):
    """hparams with the file they came from: relative paths are relative to it."""

    model_config = ConfigDict(frozen=True)
    path: Path
    sha256: str
    hparams: Hparams

    def resolve(self, relative: str) -> Path:
        return (self.path.parent / relative).resolve()


def load(path: Path) -> LoadedHparams:
    """Read and validate. Raises InputError(HPARAMS_INVALID) with one line per problem."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(Code.HPARAMS_INVALID, f"cannot read {path}: {error.strerror}") from None
    try:
        hparams = _parse(raw)
    except ValueError as error:
        raise InputError(
            Code.HPARAMS_INVALID, "\n".join(f"{path}: {problem}" for problem in problems(error))
        ) from None
    return LoadedHparams(
        path=path.resolve(), sha256=hashlib.sha256(raw).hexdigest(), hparams=hparams
    )


def load_hparams(path: Path | None) -> LoadedHparams:
    """The benchmark: `path`, else $TRAINJUDGE_HPARAMS, else hparams.json here, else the project's.

    Args:
        path: of a file, or the name of a benchmark that comes with the judge; so for the variable.

    Raises InputError(HPARAMS_INVALID, BAD_ARGUMENT).
    """
    environment = os.environ.get("TRAINJUDGE_HPARAMS")
    named = path or (Path(environment) if environment else None)
    if named is not None:
        return load(file_of(named))
    here = Path("hparams.json")
    return load(here if here.is_file() else DEFAULT_HPARAMS)


def _parse(raw: bytes) -> Hparams:
    """Raises ValueError, of which pydantic's ValidationError and JSON's and UTF-8's are kinds."""
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes: not an hparams file")
    try:
        json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise ValueError("nested too deeply: not an hparams file") from None
    return Hparams.model_validate_json(raw)


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON keeps the last of two equal keys, silently; a second tolerance must not win like that."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(one_line(f"the key {', '.join(twice)} is there twice in one object"))
    return found


def problems(error: ValueError) -> list[str]:
    """A line for each thing that is wrong with a file, in the words of whoever writes it."""
    if isinstance(error, UnicodeDecodeError):
        return [f"not UTF-8 text: {error.reason} at byte {error.start}"]
    if isinstance(error, json.JSONDecodeError):
        return [f"not valid JSON: {error}"]
    if not isinstance(error, ValidationError):
        return [str(error)]
    return [_problem(details["type"], details["loc"], details["msg"]) for details in error.errors()]


#: Sections that come in several kinds: the key that tells which, and what it may say.
_UNIONS = {
    "model": ("source", ("embedded", "hub", "local")),
    "data": ("source", ("embedded", "hub")),
    "optimizer": ("name", ("sgd", "adamw")),
}


def _problem(kind: str, location: tuple[int | str, ...], message: str) -> str:
    key, tags = _UNIONS.get(str(location[0]) if location else "", ("", ()))
    # A union's tag is part of pydantic's location but not of the file.
    parts = [str(part) for index, part in enumerate(location) if not (index == 1 and part in tags)]
    where = ".".join(parts) or "the file"
    known = " or ".join(f'"{tag}"' for tag in tags)
    texts = {
        "extra_forbidden": "there is no such key",
        "missing": "is missing",
        "model_type": "must be a JSON object",
        "union_tag_not_found": f'needs a "{key}": {known}',
        "union_tag_invalid": f'its "{key}" must be {known}',
    }
    return one_line(f"{where}: {texts.get(kind, message.removeprefix('Value error, '))}")
