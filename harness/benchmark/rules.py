"""The sections of an hparams file that say what is allowed: tolerances, their evidence, score, limits."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from harness.benchmark.problem import Section

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(gt=0, le=2**46)]
#: Metrics that there were: what they found, others find (docs/power.md).
RETIRED: Final = ("inexactness",)


class Tolerances(Section):
    """Largest accepted value of every metric (`harness/verify` defines them). Dimensionless but loss."""

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, given: Any) -> Any:
        """A benchmark may have been calibrated when there were metrics that are judged no more."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if name not in RETIRED}

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
    matched_filter: float | None = Field(
        default=None,
        gt=0,
        description="largest z in the direction of a known approximation; null: not judged",
    )


class CalibrationVariant(Section):
    """One way in which an honest run may differ, and what it did to each metric: at worst, in every run."""

    name: str
    runs: int = Field(ge=1)
    counted: bool = Field(description="false: shown for comparison, not allowed by compute_dtype")
    worst: dict[str, float]
    values: dict[str, tuple[float, ...]] = Field(
        default_factory=dict, description="of every run; not there before tails were fitted"
    )


class Fit(Section):
    """How far the noise of one metric goes (`harness/calibrate/tail.py`)."""

    variant: str = Field(description="the noisiest")
    tail: Literal["normal", "exponential"] = Field(
        default="normal", description="of the logarithm, or of norm_ratio and matched_filter as is"
    )
    center: float = Field(
        description="of its runs, in the metric's unit; of an exponential tail the median"
    )
    spread: float = Field(
        ge=0,
        description="of their logarithms; of norm_ratio and matched_filter as is; of an exponential tail "
        "the mean distance from the center",
    )
    wider: float = Field(ge=1, description="what the spread is multiplied by for the worst run")
    runs: int = Field(ge=1)
    mean_of: int = Field(default=1, ge=1, description="so many runs' mean is what is bounded")
    rate: float = Field(gt=0, lt=1, description="of such runs, or means, that exceed the bound")
    bound: float = Field(gt=0)


class Calibration(Section):
    """Where the tolerances come from: `validator calibrate` writes this."""

    date: str
    torch: str
    transformers: str
    device: str
    multiple: float | None = Field(
        default=None, gt=1, description="tolerance = multiple x worst, before tails were fitted"
    )
    false_alarms: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="of honest evaluations of `evaluation_runs` runs, over all metrics together",
    )
    fits: dict[str, Fit] = Field(
        default_factory=dict, description="what each metric's tolerance rests on"
    )
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
    means: dict[str, Fit] = Field(
        default_factory=dict,
        description="metrics whose mean over an evaluation's runs is judged as well, and its bound",
    )
    variants: tuple[CalibrationVariant, ...]
    benchmark_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="of the fields that shape the noise, when measured"
    )


class Together(Section):
    """What the runs of an evaluation have to meet together (`harness/verify/together.py`)."""

    strict_update_error: float | None = Field(
        default=None,
        gt=0,
        description="which update error one run at least has to stay below; null: any",
    )
    means: dict[str, float] = Field(
        default_factory=dict, description="of metrics, the largest mean over the runs"
    )
    fewest_runs: int = Field(default=2, ge=2, description="that have such a mean")


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
        "weights are compared, up to some 33,000 tokens; 0: none",
    )
    filter_steps: int | None = Field(
        default=None,
        ge=0,
        le=1_000,
        description="of a run, drawn in secret, at which the reference computes what the update would be "
        "with work left out, and compares directions: six passes in float32 each; 0: none; null: 2 where "
        "something below float32 is honest, else 0, since the strict bound sees as much",
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
