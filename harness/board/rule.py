"""The scoring rule of a season: everything that decides who leads, fixed when the season opens.

docs/scoring.md tells it as a story, with an example. A changed rule is a new season, so the rule travels in
the event that opens one.
"""

from typing import Annotated, Literal

from pydantic import Field

from harness.records import Record

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ScoringRule(Record):
    """How submissions are scored, ranked and admitted. The defaults are those of docs/scoring.md."""

    statistic: Literal["median", "mean", "worst"] = Field(
        default="median", description="of the MFU of all runs of accepted evaluations"
    )
    min_runs: int = Field(default=1, ge=1, le=1_000, description="fewer timed runs are no score")
    min_success_rate: Share = Field(
        default=1.0, description="share of runs that the submission did not fail; below it no score"
    )
    base_threshold: float = Field(
        default=0.01,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="what a new leader has to be ahead at least: 0.01 is 1 %",
    )
    half_life_hours: float = Field(
        default=24.0,
        gt=0,
        le=8_784,
        allow_inf_nan=False,
        description="in which the threshold falls half way from the leader's own jump to the base",
    )
    pairs: int = Field(
        default=10,
        ge=0,
        le=1_000,
        description="budget of paired runs against the leader; 0: none are needed to take the lead",
    )
    confidence: float = Field(
        default=0.95,
        ge=0.5,
        lt=1,
        description="of the paired test, one-sided: 1 - confidence is its rate of false alarms",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the bootstrap's resamples")
    isolation: tuple[str, ...] = Field(
        default=("docker", "bubblewrap"), min_length=1, description="levels that may be ranked"
    )
    near_copy: Share = Field(
        default=0.9, description="similarity from which a program counts as nearly the same"
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="evaluations that end in our own error, then we give up",
    )
    submissions_per_day: int = Field(
        default=20, ge=1, le=100_000, description="of one author, rejected ones included"
    )
    source_visible: Literal["judged", "season_end"] = Field(
        default="judged", description="from when everybody can read a submission's source"
    )
    peak_tflops: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="of one device of the season's hardware, fixed for all evaluations, so that a noisy "
        "measurement of it moves no rank; null: as the benchmark says",
    )
