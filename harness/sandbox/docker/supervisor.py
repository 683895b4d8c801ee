"""The process between the judge and a container: makes it, watches it, and leaves nothing of it.

It speaks the language of `../supervisor.py`: the plan is a line on standard input, which is then the
lifeline; the ending goes to standard output once the container is gone; a memory file takes the log.
If it is killed itself, the container's labels tell `validator clean` whose it was.
"""

import contextlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from harness.sandbox.cgroup import ControlGroup
from harness.sandbox.docker.container import OWN_TASKS, DockerPlan
from harness.sandbox.job import EndReason
from harness.sandbox.supervising import (
    FAILED,
    KILL_SECONDS,
    LEFT,
    End,
    Look,
    Report,
    first_line,
    go_above_the_ranks,
    look_once,
    out_of_memory,
    over_size,
    send,
    too_many_tasks,
)
from harness.sandbox.user import take_back
from harness.sandbox.watch import Log

# The engine may be slow to make or to end a container on a busy machine; waiting for the end has no limit.
ANSWER_SECONDS: Final = 60.0
# After its end, what a container has printed is there at once.
LOG_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 0.2
# An engine that was restarted removes what has ended; if it does not come back nothing runs all the same.
RETURN_SECONDS: Final = 10.0
ENGINE_ERRORS = (DockerException, RequestException, OSError)


def supervise() -> None:
    """Entry point: one plan, one container, one report."""
    os.setsid()  # a Ctrl-C is for the judge, who then says stop
    # So is a machine that shuts down: whoever ends us alone would leave the container.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    plan = DockerPlan(**first_line())
    supervision = _Supervision(plan)
    try:
        supervision.start()
        reason, status, detail = supervision.run()
        report = Report(str(reason), status, detail, [])
    except Exception as error:
        report = Report(FAILED, None, _words(error), [])
    left = supervision.remove(KILL_SECONDS)
    if left is not None:
        report = Report(LEFT, None, left, [])
    take_back(plan.writable)
    send(report)


def _words(error: Exception) -> str:
    """The engine's own sentence where there is one."""
    if isinstance(error, APIError) and error.explanation:
        return str(error.explanation)
    return f"{type(error).__name__}: {error}"


class _Supervision:
    """One container, from its making to its removal."""

    def __init__(self, plan: DockerPlan) -> None:
        self._plan = plan
        self._log = Log(plan.log, plan.log_bytes)
        self._id: str | None = None
        self._group: ControlGroup | None = None
        self._reader: threading.Thread | None = None
        self._look = Look(plan.outbox)
        # A thread writes a byte when the container has ended, or nothing more can be known of it.
        self._ended, self._tell = os.pipe()

    def _client(self, seconds: float | None = ANSWER_SECONDS) -> APIClient:
        return APIClient(base_url=self._plan.engine, version="auto", timeout=seconds)

    def start(self) -> None:
        """Make and start the container. Raises what the SDK does."""
        client = self._client()
        host = client.create_host_config(**self._plan.host)
        # Its name, until the engine has said its id: an answer that never comes leaves none behind.
        self._id = self._plan.create["name"]
        self._id = client.create_container(host_config=host, **self._plan.create)["Id"]
        # Attached before it starts: nothing that it prints is missed, however quickly it ends.
        output = self._client(None).attach(self._id, stdout=True, stderr=True, stream=True)
        self._reader = _thread(lambda: self._read(output))
        client.start(self._id)
        state = client.inspect_container(self._id)["State"]
        self._group = ControlGroup.of(state["Pid"], self._id) if state["Pid"] else None
        _thread(self._wait)
        go_above_the_ranks()

    def _read(self, output: Any) -> None:
        with contextlib.suppress(*ENGINE_ERRORS):
            for data in output:
                self._log.append(data)

    def _wait(self) -> None:
        with contextlib.suppress(*ENGINE_ERRORS):
            self._client(None).wait(self._id)
        os.write(self._tell, b"x")

    def run(self) -> End:
        """Wait for the first of: the container's end, the judge's word, a limit."""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            wait = 0.0
            while True:
                ready = {key.fd for key, _ in selector.select(wait)}
                if 0 in ready:
                    return EndReason.STOPPED, None, "stopped by the judge"
                if self._ended in ready:
                    return self._exit()
                limit, wait = look_once(self._over_limit)
                if limit is not None:
                    return limit

    def _exit(self) -> End:
        if self._reader is not None:
            self._reader.join(LOG_SECONDS)
        state = self._client().inspect_container(self._id)["State"]
        if state["Running"]:
            raise ConnectionError("the engine stopped answering while the container ran")
        over = self._over_outbox()
        if over is not None:
            return over
        if state["OOMKilled"]:
            return out_of_memory(self._plan.memory_bytes)
        status = int(state["ExitCode"])
        if state.get("Error"):
            raise RuntimeError(f"the container did not run: {state['Error']}")
        if status > 128:
            return EndReason.EXITED, status, f"ended by signal {status - 128}"
        return EndReason.EXITED, status, f"ended with exit status {status}"

    def _over_limit(self) -> End | None:
        if self._group is not None:
            tasks = self._group.tasks() - OWN_TASKS
            if tasks > self._plan.processes:
                return too_many_tasks(tasks, self._plan.processes)
            if self._group.killed_for_memory():
                return out_of_memory(self._plan.memory_bytes)
            if (over := self._look.over(self._group.processes())) is not None:
                return over
        return self._over_outbox()

    def _over_outbox(self) -> End | None:
        plan = self._plan
        nameless = self._look.files.nameless_bytes
        return over_size("the outbox", plan.outbox, plan.outbox_bytes, nameless)

    def remove(self, seconds: float) -> str | None:
        """Kill and remove the container; why that failed, or None when no process of it is left."""
        began = time.monotonic()
        until = began + seconds
        while self._id is not None:
            left = max(1.0, min(ANSWER_SECONDS, until - time.monotonic()))
            try:
                self._client(left).remove_container(self._id, v=True, force=True)
            except NotFound:
                self._id = None
            except ENGINE_ERRORS as error:
                # Ended all the same: what may be left then is a name in the engine's books.
                empty = self._group is not None and self._group.kill(RETRY_SECONDS)
                if empty:
                    until = min(until, began + RETURN_SECONDS)
                if time.monotonic() > until:
                    return None if empty else self._cannot_be_removed(error)
                time.sleep(RETRY_SECONDS)
            else:
                self._id = None
        if self._reader is not None:
            self._reader.join(LOG_SECONDS)
        return None

    def _cannot_be_removed(self, error: Exception) -> str:
        assert self._id is not None
        return (
            f"container {self._id[:12]} cannot be removed: {_words(error)}; "
            "`validator clean` tries again"
        )


def _thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
