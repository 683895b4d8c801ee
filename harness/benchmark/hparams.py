"""hparams.json: the benchmark, as one validated, immutable value.

A benchmark is the same problem for every strategy: model, data, global batch, optimizer and steps are
fixed here, and so are the tolerances with the evidence they come from. Unknown keys are errors, so a
misspelt tolerance cannot silently be a default.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.benchmark.at_hand import file_of
from harness.errors import Code, InputError
from harness.paths import DEFAULT_HPARAMS
from harness.protocol.text import one_line

MAX_FILE_BYTES = 4 * 2**20

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(gt=0, le=2**46)]
#: A rank that has imported torch and transformers, and nothing more.
RANK_BYTES = 256 * 2**20


def _finite(value: object) -> object:
    """What has no type of its own is not looked at by `allow_inf_nan`, and could not be written again."""
    json.dumps(value, allow_nan=False)
    return value


FiniteJson = Annotated[object, AfterValidator(_finite)]
Dtype = Literal["float32", "bfloat16"]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Section(BaseModel):
    # Strict, or "8" and true would be numbers; an infinite tolerance would be none.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class EmbeddedModel(Section):
    """A transformers config in this file, initialised at random from a fixed seed by `preload`."""

    source: Literal["embedded"] = Field(description="the config stands in this file")
    config: dict[str, FiniteJson] = Field(description="as in a config.json; needs `model_type`")
    init_seed: int = Field(ge=0, lt=2**63, description="torch seed of the random initialisation")
    tokenizer: str = Field(description="tokenizer.json, relative to the hparams file")


class _StoredModel(Section):
    """A model that has weights, which a benchmark may leave aside."""

    random_init: bool = Field(
        default=False, description="take only config and tokenizer, draw weights from `init_seed`"
    )
    init_seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="torch seed of random weights; without them no matter",
    )


class HubModel(_StoredModel):
    """A model repository of the hub at one commit: config, weights and tokenizer."""

    source: Literal["hub"] = Field(description="a repository of the Hugging Face hub")
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name of the model")
    revision: Revision = Field(description="full commit hash; a branch name is not a benchmark")


class LocalModel(_StoredModel):
    """A folder as `save_pretrained` writes it: config.json, tokenizer.json and safetensors weights."""

    source: Literal["local"] = Field(description="a folder on this machine")
    folder: str = Field(description="relative to the hparams file")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="of what `sha256sum config.json tokenizer.json <weights>` prints, sorted by name",
    )


class EmbeddedData(Section):
    """A text file shipped beside the hparams file, plain or .gz, one document a line."""

    source: Literal["embedded"] = Field(description="a file on this machine")
    file: str = Field(
        description="relative to the hparams file: .txt, or .jsonl and .parquet with a field `text`; or .gz"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the uncompressed text")


class HubData(Section):
    """One file of a dataset repository at one commit: .txt, .jsonl or .parquet, or any of them .gz."""

    source: Literal["hub"] = Field(description="a dataset of the Hugging Face hub")
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name of the dataset")
    revision: Revision = Field(description="full commit hash")
    file: str = Field(description="its path in the repository")
    text_field: str = Field(default="text", description="column or key that holds the text")
    max_documents: int = Field(
        default=100_000,
        ge=1,
        description="how many to tokenise; the more tokens, the less can be known of a run's beforehand",
    )


class Steps(Section):
    """The number of optimizer steps of a run is drawn from this range when the clock starts."""

    min: int = Field(
        ge=1, le=10_000, description="fewest of a run; few make each weigh more in the comparison"
    )
    max: int = Field(
        ge=1, le=10_000, description="most; a range keeps a run's length unknown until it starts"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class World(Section):
    """How many ranks a submission gets, and of what kind."""

    size: int = Field(ge=1, le=1024, description="ranks, one device each")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: cuda where torch sees a GPU, else cpu"
    )


class _Optimizer(Section):
    """What the reference applies after every step; a submission brings its own equal one."""

    lr: float = Field(
        gt=0, le=100, description="rate of a step; large enough that the loss falls within a run"
    )
    weight_decay: float = Field(
        default=0.0, ge=0, le=10, description="as torch's, for all parameters alike"
    )
    warmup_steps: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="linear warm-up: step k = 1, 2, ... has lr · min(1, k / warmup_steps); "
        "0: constant",
    )
    max_grad_norm: float | None = Field(
        default=None,
        gt=0,
        description="gradients of a larger global 2-norm are scaled down to it; null: never",
    )


class Sgd(_Optimizer):
    """torch.optim.SGD."""

    name: Literal["sgd"] = Field(description="updates follow the gradients: errors show plainly")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="as torch's, not Nesterov's")


class AdamW(_Optimizer):
    """torch.optim.AdamW."""

    name: Literal["adamw"] = Field(description="what models are trained with")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean of gradients")
    beta2: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the mean of their squares"
    )
    eps: float = Field(
        default=1e-8,
        gt=0,
        le=1,
        description="added to the root; near the gradients' own size it keeps the noise of tiny ones down "
        "(1e-4 in the embedded benchmarks)",
    )


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="name")]


class Numerics(Section):
    """What is lower than said here is a cheat that is looked for; what is allowed is in the calibration."""

    param_dtype: Dtype = Field(
        default="float32", description="dtype of the parameters handed to the submission"
    )
    compute_dtype: Dtype = Field(
        description="lowest precision of matrix products that is honest; the reference computes in it"
    )
    reduce_dtype: Dtype = Field(
        default="float32", description="lowest precision in which ranks may reduce gradients"
    )
    state_dtype: Dtype = Field(
        default="float32", description="lowest precision of the optimizer's state"
    )
    placement: Literal["device", "cpu"] = Field(
        default="device",
        description="where the submission gets the model; cpu where one device cannot hold it",
    )


class Reference(Section):
    """How the trusted reference is run. It computes in `numerics.compute_dtype`."""

    world_size: int | None = Field(
        default=None, ge=1, description="ranks of the reference; null: as the benchmark's world"
    )
    micro_batches: int = Field(default=1, ge=1, description="micro-batches a step, for memory")


class Tolerances(Section):
    """Largest accepted value of every metric (`harness/verify` defines them). Dimensionless but loss."""

    loss: float = Field(gt=0, description="|loss − reference|, nats per token")
    update_error: float = Field(
        gt=0,
        description="‖ws−wr‖ / ‖wr−a·w0‖, all parameters; a is what weight decay alone leaves",
    )
    tensor_update_error: float = Field(gt=0, description="the same, worst tensor")
    slice_update_error: float = Field(
        gt=0, description="the same, worst expert or input-embedding row"
    )
    norm_ratio: float = Field(gt=0, description="|‖ws−a·w0‖ / ‖wr−a·w0‖ − 1|, all parameters")
    tensor_norm_ratio: float = Field(gt=0, description="the same, worst tensor")
    step_weight: float = Field(gt=0, description="largest |weight of a step − 1|")
    token_loss_shift: float | None = Field(
        default=None,
        gt=0,
        description="median of |loss − reference's| over tokens, nats; null: not judged",
    )
    token_group_shift: float | None = Field(
        default=None,
        gt=0,
        description="largest |z| of a group of tokens against the rest; null: not judged",
    )


class CalibrationVariant(Section):
    """One way in which an honest run may differ, and the worst it did to each metric."""

    name: str
    runs: int = Field(ge=1)
    counted: bool = Field(description="false: shown for comparison, not allowed by compute_dtype")
    worst: dict[str, float]


class Calibration(Section):
    """Where the tolerances come from: `validator calibrate` writes this."""

    date: str
    torch: str
    transformers: str
    device: str
    multiple: float = Field(gt=1, description="tolerance = multiple x worst counted value")
    runs: int = Field(ge=1, description="counted runs")
    floors: dict[str, float] = Field(
        default_factory=dict, description="metrics whose tolerance is a stated floor instead"
    )
    strict_update_error: float | None = Field(
        default=None,
        gt=0,
        description="of the runs of an evaluation at least one has to have a smaller update error; null: "
        "not judged",
    )
    variants: tuple[CalibrationVariant, ...]
    benchmark_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="of the fields that shape the noise, when measured"
    )


class Verify(Section):
    """What the comparison with the reference allows and looks at."""

    tolerances: Tolerances = Field(description="measured by `validator calibrate`, not chosen")
    attribution_samples: int = Field(
        default=100_000,
        ge=100,
        le=10_000_000,
        description="elements, drawn in secret, from which the weight of each step is computed",
    )
    token_loss_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="part of the served rows, drawn in secret, whose tokens' losses under the final "
        "weights are compared; 0: none",
    )
    explain_seconds: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="may be spent on finding out which likely mistake explains a rejected update; 0: none",
    )
    calibration: Calibration | None = Field(
        default=None, description="null: tolerances are guesses, and every result says so"
    )


class Mfu(Section):
    """How speed becomes the figure that is ranked."""

    basis: Literal["active_params", "matmul_flops"] = Field(
        default="active_params", description="which of the two MFU figures is the headline"
    )
    peak_tflops: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="dense TFLOP/s of one device; null: table, or measured on CPU",
    )


class Limits(Section):
    """What the sandbox allows. Wall times are the judge's; sizes are of the whole sandbox."""

    startup_seconds: float = Field(
        default=300, ge=10, le=86_400, description="launch and model loading"
    )
    setup_seconds: Seconds = Field(
        default=300, description="import, setup() and warm-up, each time"
    )
    run_seconds: Seconds = Field(default=600, description="one timed run")
    open_seconds: Seconds = Field(default=300, description="opening the state of one run")
    memory_bytes: Bytes = Field(default=16 * 2**30, description="anonymous and shared memory")
    processes: int = Field(default=512, ge=16, le=65_536, description="processes and threads")
    outbox_bytes: Bytes = Field(default=4 * 2**30, description="bytes in the outbox of all ranks")
    tmp_bytes: Bytes = Field(default=2**30, description="size of /tmp and of /dev/shm, each")
    log_bytes: int = Field(
        default=2**20, gt=0, le=2**30, description="kept of stdout and stderr; the rest is cut"
    )


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
        needed = self.world.size * RANK_BYTES
        if self.limits.memory_bytes < needed:
            raise ValueError(
                f"limits.memory_bytes is {self.limits.memory_bytes:,}, and {self.world.size} rank(s) of "
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
    def strict_update_error(self) -> float | None:
        """Which update error one run of an evaluation has to stay below; None: not judged."""
        calibration = self.verify.calibration
        return calibration.strict_update_error if calibration and self.calibrated else None

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
            Code.HPARAMS_INVALID, "\n".join(f"{path}: {problem}" for problem in _problems(error))
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


def _problems(error: ValueError) -> list[str]:
    if isinstance(error, UnicodeDecodeError):
        return [f"not UTF-8 text: {error.reason} at byte {error.start}"]
    if isinstance(error, json.JSONDecodeError):
        return [f"not valid JSON: {error}"]
    if not isinstance(error, ValidationError):
        return [str(error)]
    return [_problem(details["type"], details["loc"], details["msg"]) for details in error.errors()]


#: Sections that come in several kinds: the key that tells which, and what it may say.
_UNIONS = {
    "model": ("source", ("embedded", "hub")),
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
