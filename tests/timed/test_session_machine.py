"""The conversation as a state machine, against ranks that say anything at any moment.

Real sockets in one thread: what ranks say lies in the sockets before the judge looks, so that a small model
can tell what has to come of it.
"""

import struct
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from harness.errors import Code, JudgeError, SubmissionError, TrainjudgeError
from harness.protocol.messages import (
    Commitment,
    Done,
    Failed,
    Hello,
    Loaded,
    Message,
    Opened,
    Progress,
    Ready,
    Stage,
)
from harness.protocol.wire import frame
from harness.sandbox import EndReason
from harness.timed import session as session_module
from harness.timed.session import LIMIT_CODES, STAGE_CODES, Session
from tests.timed.scripted_ranks import FakeSandbox, connect, watch

WORLD: Final = 2
SHORT: Final = 0.05
LONG: Final = 10.0


@dataclass(frozen=True)
class Due:
    """What the judge waits for, and what an honest rank says."""

    kind: type[Message]
    stage: Stage
    said: Message
    run: int | None = None


def _run(run: int) -> list[Due]:
    return [
        Due(Ready, Stage.SETUP, Ready(run=run), run),
        Due(Done, Stage.TRAINING, Done(run=run, final_loss=1.0, total_tokens=8), run),
        Due(Commitment, Stage.RESULT, Commitment(run=run, pieces=()), run),
        Due(Opened, Stage.OPENING, Opened(run=run, peak_memory_bytes=1), run),
    ]


HELLO: Final = Hello(protocol=2, rank=0, world_size=WORLD, torch="", transformers="", device="")
STORY: Final = [
    Due(Hello, Stage.LOADING, HELLO),
    Due(Loaded, Stage.LOADING, Loaded()),
    *_run(0),
    *_run(1),
]
HANDED_OVER_BEFORE: Final = 2
NONSENSE: Final = (
    b"",
    b"[]",
    b"\xff",
    b'{"type":"ready"}',
    b"[" * 2000,
    b'{"type":"bye"}',
)


def body(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Conversation(RuleBasedStateMachine):
    """`faults`: for each rank the codes that what it has done since the last turn may be rejected with."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        self.stack = ExitStack()
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(session_module, "GRACE_SECONDS", SHORT)
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.judge = self.stack.enter_context(Session(folder, WORLD, lambda stage: None))
        self.sandbox = FakeSandbox()
        watch(self.judge, self.sandbox)
        self.links = [self.stack.enter_context(connect(folder, rank)) for rank in range(WORLD)]
        self.turn = 0
        self.over = False
        self._forget()

    def _forget(self) -> None:
        self.answered = [False] * WORLD
        self.faults: set[Code] = set()

    @property
    def due(self) -> Due:
        return STORY[self.turn]

    def teardown(self) -> None:
        self.stack.close()

    @precondition(lambda self: self.over)
    @rule()
    def another_one_begins(self) -> None:
        self.stack.close()
        self.begin()

    # --- what ranks do ---

    def _send(self, rank: int, data: bytes) -> None:
        try:
            self.links[rank].sendall(data)
        except OSError:
            assert Code.RANK_EXITED in self.faults or self.over

    def _open(self, rank: int) -> bool:
        return self.links[rank].fileno() != -1

    @precondition(lambda self: not self.over)
    @rule(rank=st.integers(0, WORLD - 1))
    def answers(self, rank: int) -> None:
        if self._open(rank):
            self._send(rank, frame(self.due.said))
            if self.answered[rank]:
                self.faults.add(Code.BAD_MESSAGE)
            self.answered[rank] = True

    @precondition(lambda self: not self.over and not self.faults)
    @rule()
    def all_answer_and_the_judge_looks(self) -> None:
        for rank in range(WORLD):
            if not self.answered[rank]:
                self.answers(rank)
        self.judge_looks()

    @precondition(lambda self: not self.over)
    @rule(rank=st.integers(0, WORLD - 1), stage=st.sampled_from(Stage))
    def tells_its_stage(self, rank: int, stage: Stage) -> None:
        if self._open(rank):
            self._send(rank, frame(Progress(stage=stage)))

    @precondition(lambda self: not self.over)
    @rule(rank=st.integers(0, WORLD - 1), turn=st.integers(0, len(STORY) - 1))
    def says_what_is_not_due(self, rank: int, turn: int) -> None:
        if self._open(rank) and STORY[turn].said != self.due.said:
            self._send(rank, frame(STORY[turn].said))
            self.faults.add(Code.BAD_MESSAGE)

    @precondition(lambda self: not self.over)
    @rule(
        rank=st.integers(0, WORLD - 1), nonsense=st.sampled_from(NONSENSE) | st.binary(max_size=64)
    )
    def talks_nonsense(self, rank: int, nonsense: bytes) -> None:
        if self._open(rank):
            self._send(rank, body(nonsense))
            self.faults.add(Code.BAD_MESSAGE)

    @precondition(lambda self: not self.over)
    @rule(rank=st.integers(0, WORLD - 1), stage=st.sampled_from(Stage))
    def fails(self, rank: int, stage: Stage) -> None:
        if self._open(rank):
            self._send(rank, frame(Failed(stage=stage, message="it does not work")))
            self.faults.add(STAGE_CODES[stage])

    @precondition(lambda self: not self.over)
    @rule(rank=st.integers(0, WORLD - 1))
    def hangs_up(self, rank: int) -> None:
        self.links[rank].close()
        self.faults.add(Code.RANK_EXITED)

    @precondition(lambda self: not self.over)
    @rule(reason=st.sampled_from(sorted(LIMIT_CODES)))
    def passes_a_limit(self, reason: EndReason) -> None:
        if self.sandbox.ended() is None:
            self.sandbox.end(reason)
            self.faults.add(LIMIT_CODES[reason])

    # --- what the judge does ---

    @precondition(lambda self: not self.over)
    @rule()
    def judge_looks(self) -> None:
        complete = all(self.answered)
        seconds = LONG if complete or self.faults else SHORT
        began = time.monotonic()
        due = self.due
        try:
            gathered = self.judge.gather(due.kind, due.stage, seconds, due.run)
        except TrainjudgeError as error:
            self.over = True
            self._rejected(error, complete)
        else:
            assert complete, "it went on without an answer of every rank"
            # What came with the answers is seen at this turn or, at the latest, at the next.
            assert gathered.messages == (due.said,) * WORLD
            assert self.faults <= {Code.RANK_EXITED}, "it took what it should have refused"
            self._next()
        assert time.monotonic() - began < 5, "it waited for what could not come"

    def _next(self) -> None:
        late = self.faults
        self._forget()
        self.faults |= late
        self.turn += 1
        event(f"turn {self.turn}")
        self.over = self.turn == len(STORY)
        self.judge.handed_over = self.turn >= HANDED_OVER_BEFORE

    def _rejected(self, error: TrainjudgeError, complete: bool) -> None:
        assert error.message.isprintable() and len(error.message) < 500
        if not self.judge.handed_over:
            assert isinstance(error, JudgeError) and error.code is Code.WORKER_FAILED
            return
        assert isinstance(error, SubmissionError)
        if not self.faults:
            assert not complete and error.code is Code.TIMED_OUT
        else:
            # A rank that breaks off while something else is wrong may be seen first.
            assert error.code in self.faults, (error.code, self.faults)
            limits = set(LIMIT_CODES.values()) & self.faults
            if limits and Code.BAD_MESSAGE not in self.faults:
                assert error.code in limits, "a limit is the cause of all else"


Conversation.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestConversation = Conversation.TestCase
