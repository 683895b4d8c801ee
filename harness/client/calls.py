"""The two things that a participant asks a server for: take my file, and what became of it."""

from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.client.address import Address, address_of, check_key, check_may_carry_key
from harness.client.transport import Call, ask, no_leaderboard
from harness.errors import Verdict
from harness.protocol.text import excerpt, one_line, printable
from harness.records import Record

#: Who waits behind more than these is told just that.
QUEUE_ENTRIES: Final = 200
#: Of what a server sends; more is nothing that a person reads.
PROGRESS_LINES: Final = 500
HISTORY_LINES: Final = 1_000
TEXT_CHARACTERS: Final = 4_000
#: States in which something happens still. Any other is the end, those of a newer server included.
UNDER_WAY: Final = frozenset({"queued", "running"})

Number = Annotated[int, Field(ge=1, lt=2**63)]


class RemoteEvent(Record):
    """Something that happened to a submission, told in a line; `id` grows."""

    id: int
    text: str


class RemoteStatus(Record):
    """What a server says of a submission; all text is fit for a terminal.

    Attributes:
        state: queued, running, judged, held, failed, cancelled, invalidated.
        why: of the state, where there is more to say.
        verdict, code, message, run_mfus: of the evaluation that finished last.
        position: starts until its turn, 1 is next; None: it does not wait, or far behind.
        progress: what the judge has said so far, while it runs.
    """

    id: int
    author: str
    file_name: str
    season: str
    state: str
    why: str
    verdict: Verdict | None
    code: str
    message: str
    run_mfus: tuple[float, ...]
    position: int | None
    progress: tuple[str, ...]
    history: tuple[RemoteEvent, ...]

    @property
    def over(self) -> bool:
        """Whether nothing happens any more by itself."""
        return self.state not in UNDER_WAY


def submit_to(
    server: str,
    key: str | None,
    file_name: str,
    source: bytes,
    note: str = "",
    season: str | None = None,
    *,
    insecure: bool = False,
) -> int:
    """Hand a train file in at a server; gives the submission's number.

    Args:
        server: its address.
        key: the author's.
        file_name: as its author calls it.
        source: its bytes.
        note: what its author says of it.
        season: by name; None: the only one that is open.
        insecure: send the key even where others on the way can read it.

    Raises:
        SubmissionError, InputError: what `board.submit` raises, and KEY_REFUSED; BAD_ARGUMENT: no address,
            not encrypted, or no leaderboard.
        JudgeError: STORE_UNAVAILABLE: it cannot be reached; or the server fails.
    """
    address = address_of(server)
    checked = check_key(key)
    check_may_carry_key(address, insecure)
    fields = {"note": printable(note)} | ({} if season is None else {"season": printable(season)})
    call = Call(
        method="POST",
        path="/api/v1/submissions",
        key=checked,
        fields=fields,
        file=(one_line(file_name), source),
        unsure="the file may have been taken all the same: look at your page before you try again",
    )
    return _parsed(_Taken, address, ask(address, call)).id


def status_of(server: str, submission: int) -> RemoteStatus:
    """What became of a submission so far; nothing secret is sent.

    Raises:
        InputError: UNKNOWN_ID: there is none; BAD_ARGUMENT: no address, or no leaderboard.
        JudgeError: STORE_UNAVAILABLE: it cannot be reached; or the server fails.
    """
    address = address_of(server)
    body = ask(address, Call("GET", f"/api/v1/submissions/{submission}"))
    seen = _parsed(_Submission, address, body)
    position = None
    if seen.state == "queued":
        queue = ask(address, Call("GET", f"/api/v1/queue?limit={QUEUE_ENTRIES}"))
        for entry in _parsed(_Queue, address, queue).entries:
            if entry.submission == submission and entry.position > 0:
                position = entry.position
    return _status(seen, position)


# --- what comes over the wire -------------------------------------------------------------------


class _Wire(BaseModel):
    """What a newer server adds is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Taken(_Wire):
    id: Number


class _Event(_Wire):
    id: int
    text: str


class _Evaluation(_Wire):
    state: str
    verdict: Verdict | None
    code: str | None
    message: str
    run_mfus: tuple[float, ...]
    progress: str


class _Submission(_Wire):
    id: Number
    author: str
    file_name: str
    season: str
    state: str
    why: str
    verdict: Verdict | None
    evaluations: tuple[_Evaluation, ...]
    history: tuple[_Event, ...]


class _Entry(_Wire):
    position: int
    submission: int


class _Queue(_Wire):
    entries: tuple[_Entry, ...]


Answer = TypeVar("Answer", bound=_Wire)


def _parsed(kind: type[Answer], address: Address, body: bytes) -> Answer:
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        raise no_leaderboard(address, body) from None


def _status(seen: _Submission, position: int | None) -> RemoteStatus:
    judged = [each for each in seen.evaluations if each.verdict is not None]
    running = [each for each in seen.evaluations if each.state == "running"]
    last = judged[-1] if judged else None
    # The last line may be half a line still.
    said = running[-1].progress.split("\n")[:-1] if running else []
    return RemoteStatus(
        id=seen.id,
        author=one_line(seen.author),
        file_name=one_line(seen.file_name),
        season=one_line(seen.season),
        state=one_line(seen.state),
        why=excerpt(seen.why, TEXT_CHARACTERS),
        verdict=seen.verdict,
        code="" if last is None or last.code is None else one_line(last.code),
        message="" if last is None else excerpt(last.message, TEXT_CHARACTERS),
        run_mfus=() if last is None else last.run_mfus,
        position=position,
        progress=tuple(one_line(line) for line in said[-PROGRESS_LINES:]),
        history=tuple(
            RemoteEvent(id=event.id, text=excerpt(event.text, TEXT_CHARACTERS))
            for event in seen.history[-HISTORY_LINES:]
        ),
    )
