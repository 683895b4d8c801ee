"""What can happen on a leaderboard: every change of state is one of these, written once and never changed.

The tables that pages and workers read are made from the events alone (`harness.board.project`); to
replay them gives the same tables on any machine. So an event carries everything that was decided at the
time, such as an id, a score or the hash of a document, and nothing that could be found out again by
looking.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter

from harness.board.rule import ScoringRule
from harness.errors import Code, Verdict
from harness.records import Record

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EventBody(Record):
    """Base of all events. `kind` names the class in the store."""

    kind: str


class SeasonOpened(EventBody):
    """A benchmark, the hardware it is timed on and the rule that ranks; changed ones are a new season."""

    kind: Literal["season_opened"] = "season_opened"
    season: int
    name: str
    hparams_sha256: Sha256
    benchmark: str = Field(description="name in the hparams file")
    world_size: int
    hardware: str = Field(description="hardware class of the main board")
    rule: ScoringRule
    starts_at: float = Field(description="seconds since 1970; before it nothing is taken")
    ends_at: float | None


class SeasonClosed(EventBody):
    """No further submissions; what was handed in is judged still."""

    kind: Literal["season_closed"] = "season_closed"
    season: int


class AuthorAdded(EventBody):
    kind: Literal["author_added"] = "author_added"
    author: int
    name: str


class KeyIssued(EventBody):
    """The key itself is shown once and kept nowhere; its hash is."""

    kind: Literal["key_issued"] = "key_issued"
    key: int
    author: int
    sha256: Sha256
    prefix: str = Field(description="its first characters, to tell keys apart")


class KeyRevoked(EventBody):
    kind: Literal["key_revoked"] = "key_revoked"
    key: int


class Submitted(EventBody):
    """A train file was handed in, and its first evaluation is queued."""

    kind: Literal["submitted"] = "submitted"
    submission: int
    season: int
    author: int
    file_name: str
    note: str
    source_sha256: Sha256
    program: str = Field(description="hash of the normalised syntax tree")
    strategy: str
    world_size: int


class EvaluationQueued(EventBody):
    kind: Literal["evaluation_queued"] = "evaluation_queued"
    evaluation: int
    submission: int
    why: str = Field(description="submitted, or why once more")


class EvaluationStarted(EventBody):
    kind: Literal["evaluation_started"] = "evaluation_started"
    evaluation: int
    worker: str
    machine: str = Field(
        description="id of the running kernel; two workers on it do not time at once"
    )


class EvaluationGivenBack(EventBody):
    """It is queued again, with all that it had: the worker could not finish it."""

    kind: Literal["evaluation_given_back"] = "evaluation_given_back"
    evaluation: int
    worker: str
    cause: str
    tried: bool = Field(
        default=True, description="false: it was never begun, or ended by us; that is no try"
    )


class Outcome(EventBody):
    """The columns that ranking and lists need; the whole result is the document with that hash."""

    evaluation: int
    verdict: Verdict
    code: Code
    message: str
    result_sha256: Sha256
    run_mfus: tuple[float, ...] = Field(description="of every run, if accepted; else empty")
    failed_runs: int = Field(ge=0)
    tokens_per_second: float | None


class EvaluationFinished(Outcome):
    """A worker has judged."""

    kind: Literal["evaluation_finished"] = "evaluation_finished"
    worker: str
    isolation: str
    hardware: str
    seconds: float = Field(description="wall time of the evaluation")


class EvaluationRejudged(Outcome):
    """From its kept files, without training: the outcome is this one from now on."""

    kind: Literal["evaluation_rejudged"] = "evaluation_rejudged"
    why: str


class EvaluationSetAside(EventBody):
    """Judged on a node that was found to be unlike its class since: no outcome; it is judged once more."""

    kind: Literal["evaluation_set_aside"] = "evaluation_set_aside"
    evaluation: int
    why: str


class EvaluationAbandoned(EventBody):
    """Ours failed too often: it waits for the organiser, and is held against nobody."""

    kind: Literal["evaluation_abandoned"] = "evaluation_abandoned"
    evaluation: int
    cause: str


class SubmissionCancelled(EventBody):
    kind: Literal["submission_cancelled"] = "submission_cancelled"
    submission: int


class SubmissionInvalidated(EventBody):
    """The organiser's decision: as if it had never been there, but everybody can read why."""

    kind: Literal["submission_invalidated"] = "submission_invalidated"
    submission: int
    why: str


class SubmissionHeld(EventBody):
    """Accepted, but not ranked until the organiser has looked: the same program was rejected before."""

    kind: Literal["submission_held"] = "submission_held"
    submission: int
    because_of: int
    why: str


class SubmissionReleased(EventBody):
    kind: Literal["submission_released"] = "submission_released"
    submission: int
    why: str


class Compared(EventBody):
    """A contender and the leader ran in turns on one machine."""

    kind: Literal["compared"] = "compared"
    season: int
    contender: int
    leader: int
    ratios: tuple[float, ...] = Field(
        description="MFU of the contender over the leader's, per pair"
    )
    ratio: float
    low: float
    faster: bool


class ComparisonFailed(EventBody):
    """A comparison ended before it could say anything of the contender: it is owed still."""

    kind: Literal["comparison_failed"] = "comparison_failed"
    season: int
    contender: int
    leader: int
    cause: str
    ours: bool = Field(description="the judge's fault; else the leader's run was rejected")


class CanaryJudged(EventBody):
    """A node of a fleet judged the exemplary file: how fast, for a comparison with others of its class."""

    kind: Literal["canary_judged"] = "canary_judged"
    host: str
    hardware: str
    hparams_sha256: Sha256
    canary: Sha256 = Field(description="of the file")
    verdict: Verdict
    code: Code
    message: str
    speeds: tuple[float, ...] = Field(description="tokens per second of every run, if accepted")


class NodeExcluded(EventBody):
    """Its results are not like those of its class: nothing more of a benchmark is judged there."""

    kind: Literal["node_excluded"] = "node_excluded"
    host: str
    hparams_sha256: Sha256
    why: str


class NodeAdmitted(EventBody):
    """The organiser's decision: it is repaired, and its canaries count from now on."""

    kind: Literal["node_admitted"] = "node_admitted"
    host: str
    hparams_sha256: Sha256
    why: str


class AlarmRaised(EventBody):
    """Something that an organiser has to look at."""

    kind: Literal["alarm_raised"] = "alarm_raised"
    submission: int
    text: str
    stops_pairs: bool = Field(
        default=False, description="nothing is compared with it until it is released"
    )


Event = Annotated[
    SeasonOpened
    | SeasonClosed
    | AuthorAdded
    | KeyIssued
    | KeyRevoked
    | Submitted
    | EvaluationQueued
    | EvaluationStarted
    | EvaluationGivenBack
    | EvaluationFinished
    | EvaluationRejudged
    | EvaluationSetAside
    | EvaluationAbandoned
    | SubmissionCancelled
    | SubmissionInvalidated
    | SubmissionHeld
    | SubmissionReleased
    | Compared
    | ComparisonFailed
    | CanaryJudged
    | NodeExcluded
    | NodeAdmitted
    | AlarmRaised,
    Field(discriminator="kind"),
]


class Stamped(Record):
    """An event in its place: `id` is the order of all events, `at` is seconds since 1970."""

    id: int
    at: float
    event: Event

    #: Reads the body of a stored event.
    body: ClassVar[TypeAdapter[Event]] = TypeAdapter(Event)
