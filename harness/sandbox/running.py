"""Starting a job at a level, and holding on to it until nothing of it is left."""

import json
import os
import select
import shutil
import subprocess
from dataclasses import asdict
from types import TracebackType
from typing import Self

from harness.errors import Code, JudgeError
from harness.sandbox import bubblewrap, gpus, user
from harness.sandbox.docker import container as docker
from harness.sandbox.docker import engine as docker_engine
from harness.sandbox.docker.engine import Image
from harness.sandbox.environment import clean_environment, enter_argv, package_folders
from harness.sandbox.job import Ending, EndReason, Job, Level
from harness.sandbox.scratch import make_scratch
from harness.sandbox.supervising import FAILED, KILL_SECONDS, LEFT
from harness.sandbox.supervisor import Plan
from harness.sandbox.watch import Log
from harness.standalone import standalone_argv


class NotEndedError(JudgeError):
    """It cannot be shown that nothing of the sandbox is left: nothing that it wrote may be read."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INTERNAL, message)


class Running:
    """A started sandbox. Leaving the `with` block, or the death of this process, ends all of it.

    One thread at a time may use it.

    Attributes:
        user: the user id that every process of it has, as the judge's kernel sees it.
    """

    def __init__(self, supervisor: "subprocess.Popen[bytes]", log: Log, user: int) -> None:
        self.user = user
        self._supervisor = supervisor
        self._log = log
        self._ending: Ending | None = None
        self._failure: JudgeError | None = None
        self._kept: str | None = None
        assert supervisor.stdin is not None and supervisor.stdout is not None
        self._lifeline = supervisor.stdin
        self._report = supervisor.stdout
        self._fileno = self._report.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except NotEndedError:
            if error is None:  # else that is what has to be told
                raise
        finally:
            self._kept = self._log.read()
            os.close(self._log.file)
            self._report.close()

    def fileno(self) -> int:
        """For `select`: readable once the sandbox has ended. Valid until the `with` block is left."""
        return self._fileno

    def ended(self) -> Ending | None:
        """Why it ended, or None while it runs. Does not wait. Raises JudgeError as `stop` does."""
        if self._ending is None and _readable(self._fileno, 0.0):
            self._ending = self._conclude()
        return self._ending

    def stop(self) -> Ending:
        """Kill everything and return when nothing is left; the first reason, if it had ended before.

        Raises:
            NotEndedError: a process could not be killed, or the supervisor was.
            JudgeError: the supervisor failed.
        """
        if self._ending is None:
            self._hang_up()
            if self._failure is None and not _readable(self._fileno, KILL_SECONDS + 10):
                self._failure = NotEndedError("the sandbox's supervisor does not answer")
            self._ending = self._conclude()
        return self._ending

    def log(self) -> str:
        """What was kept of stdout and stderr: the beginning and the end, safe to print.

        Works at any time, also after the `with` block.
        """
        return self._log.read() if self._kept is None else self._kept

    def _conclude(self) -> Ending:
        """The report can be read once, and a failure told in it is told again to who asks again."""
        if self._failure is None:
            try:
                return self._read_report()
            except JudgeError as error:
                self._failure = error
        raise self._failure

    def _read_report(self) -> Ending:
        text = self._report.read()
        self._hang_up()
        self._supervisor.wait()
        if not text:
            raise NotEndedError(
                "the sandbox's supervisor was killed; processes of the sandbox may be left"
            )
        report = json.loads(text)
        if report["left"]:
            raise NotEndedError(
                f"processes {report['left']} of the sandbox cannot be killed; they hang in the kernel"
            )
        if report["reason"] == LEFT:
            raise NotEndedError(report["detail"])
        if report["reason"] == FAILED:
            raise JudgeError(Code.INTERNAL, f"the sandbox's supervisor failed: {report['detail']}")
        return Ending(EndReason(report["reason"]), report["exit_status"], report["detail"])

    def _hang_up(self) -> None:
        if not self._lifeline.closed:
            self._lifeline.close()


class Sandbox:
    """Starts jobs at one level. `choose` says which levels work; this does not check again.

    Args:
        level: of isolation.
        image: of the containers at level `docker`; None: the default one, looked up at the first start.
    """

    def __init__(self, level: Level, image: Image | None = None) -> None:
        self.level = level
        self.image = image

    def start(self, job: Job) -> Running:
        """Start `job`; returns at once. Raises JudgeError when a path of it is missing or unusable.

        A failure inside (a command that does not exist, say) is an `Ending` with an exit status.
        Raises InputError where level `docker` has been given no image and there is none.
        """
        _check_paths(job)
        if job.fabric is not None and self.level is not Level.BUBBLEWRAP:
            raise JudgeError(
                Code.SANDBOX_UNAVAILABLE,
                f"ranks on several machines need level {Level.BUBBLEWRAP}, and this one is {self.level}",
            )
        if self.level is Level.DOCKER and self.image is None:
            self.image = docker_engine.find_image(docker_engine.connect())
        taken = None
        if os.geteuid() == 0 and self.level is not Level.NONE:
            taken = user.allocate_user()
        number = None if taken is None else taken.number
        own_tmp = self.level in (Level.DOCKER, Level.BUBBLEWRAP)
        scratch = None if own_tmp else make_scratch(number)
        try:
            if number is not None:
                user.hand_over(job, number)
            lock = () if taken is None else (taken.lock.fileno(),)
            if self.level is Level.DOCKER:
                assert self.image is not None
                return _launch_container(job, self.image, number, lock)
            command = self._command(job, scratch, number)
            return _launch(job, self.level, command, scratch, number, lock)
        except BaseException as error:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(error, OSError):
                raise JudgeError(
                    Code.SANDBOX_UNAVAILABLE,
                    f"a sandbox at level {self.level} cannot start: {error}",
                ) from error
            raise
        finally:
            if taken is not None:
                taken.lock.close()

    def holds_back_gpus(self, count: int) -> bool:
        """Whether a job that asks for `count` GPUs can use no others."""
        if self.level is Level.BUBBLEWRAP:
            return gpus.told_apart(count)
        return self.level is Level.DOCKER

    def _command(self, job: Job, scratch: str | None, number: int | None) -> user.Command:
        if self.level is Level.BUBBLEWRAP:
            return bubblewrap.command(job, number)
        assert scratch is not None
        if self.level is Level.USER:
            assert number is not None, "level user needs root"
            return user.command(job, scratch, number)
        argv = enter_argv(job, folder=scratch, user=None, isolated=False, count_tasks=False)
        return user.Command(argv, ())


def _check_paths(job: Job) -> None:
    if job.outbox is not None and job.outbox not in job.writable:
        raise JudgeError(
            Code.INTERNAL, f"the outbox {job.outbox} is not among the writable folders"
        )
    for path in (job.code, *job.read_only, *job.writable):
        if not path.is_absolute() or not path.exists():
            raise JudgeError(Code.INTERNAL, f"{path} is to be seen in a sandbox but is not there")


def _launch(
    job: Job,
    level: Level,
    command: user.Command,
    scratch: str | None,
    number: int | None,
    lock: tuple[int, ...],
) -> Running:
    """Start the supervisor and give it its plan."""
    log = Log.create(job.limits.log_bytes)
    limits = job.limits
    bubbled = level is Level.BUBBLEWRAP
    plan = Plan(
        argv=list(command.argv),
        environment=clean_environment(job, scratch or "/tmp"),
        descriptors=list(command.descriptors),
        own_tasks=bubblewrap.OWN_TASKS if bubbled else 0,
        memory_bytes=limits.memory_bytes,
        # Files in /tmp and /dev/shm of its own are memory too, and have limits of their own.
        group_bytes=limits.memory_bytes + 2 * limits.tmp_bytes,
        processes=limits.processes,
        outbox=None if job.outbox is None else str(job.outbox),
        outbox_bytes=limits.outbox_bytes,
        scratch=scratch,
        scratch_bytes=limits.tmp_bytes,
        user=number,
        writable=[] if number is None else [str(path) for path in job.handed_over],
        shared_folders=not bubbled,
        log=log.file,
        log_bytes=limits.log_bytes,
        fabric=None if job.fabric is None else asdict(job.fabric),
    )
    supervised = _supervise("supervisor", (), plan, (*command.descriptors, *lock, log.file))
    for descriptor in command.descriptors:
        os.close(descriptor)
    return Running(supervised, log, os.geteuid() if number is None else number)


def _launch_container(job: Job, image: Image, number: int | None, lock: tuple[int, ...]) -> Running:
    """The same for a container: its supervisor makes it and talks to the engine."""
    log = Log.create(job.limits.log_bytes)
    limits = job.limits
    made = docker.container(job, image, number)
    plan = docker.DockerPlan(
        engine=docker_engine.socket_address(),
        create=made.create,
        host=made.host,
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        outbox=None if job.outbox is None else str(job.outbox),
        outbox_bytes=limits.outbox_bytes,
        writable=[] if number is None else [str(path) for path in job.handed_over],
        log=log.file,
        log_bytes=limits.log_bytes,
    )
    folders = tuple(map(str, package_folders()))  # for the Docker SDK
    supervised = _supervise("docker.supervisor", folders, plan, (*lock, log.file))
    return Running(supervised, log, os.geteuid() if number is None else number)


def _supervise(
    module: str,
    folders: tuple[str, ...],
    plan: Plan | docker.DockerPlan,
    inherited: tuple[int, ...],
) -> "subprocess.Popen[bytes]":
    """Start a supervisor, without the caller's environment, and give it its plan."""
    supervisor = subprocess.Popen(
        standalone_argv(f"{__package__}.{module}", "supervise", *folders),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=inherited,
        env={},
        cwd="/",
    )
    assert supervisor.stdin is not None
    try:
        supervisor.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
        supervisor.stdin.flush()
    except OSError:
        pass  # it has died: the report, which is missing, says so
    return supervisor


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(seconds * 1000))
