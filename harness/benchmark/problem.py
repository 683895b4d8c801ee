"""The sections of an hparams file that say what is trained, on what, and how a step is defined."""

import json
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


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
    nodes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="machines that they are on, equally many on each; above 1 it takes agents "
        "([multi-node.md](multi-node.md))",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: cuda where torch sees a GPU, else cpu"
    )

    @model_validator(mode="after")
    def _machines_have_as_many(self) -> Self:
        if self.size % self.nodes:
            raise ValueError(
                f"{self.size} ranks cannot be on {self.nodes} machines, as many on each"
            )
        return self

    @property
    def ranks_per_node(self) -> int:
        return self.size // self.nodes


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

    def rate(self, step: int) -> float:
        """Of a step, counted from 0."""
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup_steps))


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

    @property
    def all_float32(self) -> bool:
        """Whether nothing below float32 is honest."""
        dtypes = self.param_dtype, self.compute_dtype, self.reduce_dtype, self.state_dtype
        return set(dtypes) == {"float32"}


class Reference(Section):
    """How the trusted reference is run. It computes in `numerics.compute_dtype`."""

    world_size: int | None = Field(
        default=None, ge=1, description="ranks of the reference; null: as the benchmark's world"
    )
    micro_batches: int = Field(default=1, ge=1, description="micro-batches a step, for memory")
