"""Which levels work on this machine: each is tried with a trivial command."""

import os
import select
import sys
import tempfile
from pathlib import Path
from typing import Literal

from harness.errors import Code, InputError, TrainjudgeError
from harness.sandbox import bubblewrap, user
from harness.sandbox.docker import engine as docker_engine
from harness.sandbox.job import Availability, EndReason, Job, Level
from harness.sandbox.judge_container import inside
from harness.sandbox.running import Sandbox

TRIAL_SECONDS = 20.0
# What a worker needs: a binary module of the standard library, the packages, a folder to write in.
TRIAL = (
    "import ctypes, sys, importlib.util as u; "
    "assert u.find_spec('torch') is not None, 'torch is not visible'; "
    "open(sys.argv[1] + '/file', 'w').close(); "
    "print('alive')"
)
DESCRIPTIONS = {
    Level.DOCKER: "a container of its own, without network and capabilities, unprivileged user",
    Level.BUBBLEWRAP: "own namespaces and file system, no network, unprivileged user",
    Level.USER: "another user; shares the network and readable files with the judge",
    Level.NONE: "a plain child process: no protection from the submission",
}


def probe(hparams_sha256: str | None = None) -> tuple[Availability, ...]:
    """Every level, best first. Takes some tenths of a second, and one more with a container engine.

    Args:
        hparams_sha256: the benchmark for which level `docker` has to have its image; None: any.
    """
    return tuple(try_level(level, hparams_sha256=hparams_sha256) for level in Level)


def choose(
    level: Level | Literal["auto"] | str = "auto",
    *,
    image: str | None = None,
    hparams_sha256: str | None = None,
) -> Sandbox:
    """The sandbox for `level`; "auto" is the best that works here.

    Args:
        image: name or digest for level `docker`; None: `default_image()`. With "auto" a name is a
            wish for that level.
        hparams_sha256: hash of the benchmark's hparams file, which the image must be built for. Without
            it any image of the project will do, but "auto" does not take level `docker`.

    Raises InputError(SANDBOX_UNAVAILABLE) when the level that was asked for does not work, or none does,
    with the reason and what to do (inside the project's container "auto" does not take level `none`),
    and InputError(BAD_ARGUMENT) for a name that is no level.
    """
    if level == "auto" and image is None:
        reasons = []
        for candidate in Level:
            if candidate is Level.DOCKER and hparams_sha256 is None:
                continue
            if candidate is Level.NONE and inside():
                break  # whoever starts the container expects its judge and the train file to be apart
            availability = try_level(candidate, hparams_sha256=hparams_sha256)
            if availability.available:
                return _sandbox(candidate, None)
            reasons.append(f"{candidate}: {availability.reason}")
        raise InputError(
            Code.SANDBOX_UNAVAILABLE, "\n".join(("no level of isolation works here", *reasons))
        )
    try:
        wanted = Level.DOCKER if level == "auto" else Level(level)
    except ValueError:
        names = ", ".join(("auto", *Level))
        raise InputError(Code.BAD_ARGUMENT, f"no sandbox {level!r}; there are {names}") from None
    if image is not None and wanted is not Level.DOCKER:
        raise InputError(Code.BAD_ARGUMENT, f"--image is for the sandbox docker, not for {wanted}")
    availability = try_level(wanted, image=image, hparams_sha256=hparams_sha256)
    if not availability.available:
        raise InputError(
            Code.SANDBOX_UNAVAILABLE,
            f"the sandbox {wanted} does not work here: {availability.reason}",
        )
    return _sandbox(wanted, image)


def _sandbox(level: Level, image: str | None) -> Sandbox:
    if level is not Level.DOCKER:
        return Sandbox(level)
    return Sandbox(level, docker_engine.find_image(docker_engine.connect(), image))


def try_level(
    level: Level, *, image: str | None = None, hparams_sha256: str | None = None
) -> Availability:
    """Run a trivial command at `level`; the other arguments as of `choose`."""
    checks = {Level.BUBBLEWRAP: bubblewrap.unavailable, Level.USER: user.unavailable}
    reason = checks[level]() if level in checks else None
    sandbox = Sandbox(level)
    if level is Level.DOCKER:
        try:
            sandbox = Sandbox(level, docker_engine.usable_image(image, hparams_sha256))
        except InputError as error:
            reason = error.message
    if reason is None:
        reason = _trial(sandbox)
    if reason is not None:
        return Availability(level, False, reason)
    return Availability(level, True, DESCRIPTIONS[level])


def _trial(sandbox: Sandbox) -> str | None:
    """Why the trial failed, or None."""
    from harness.benchmark.rules import Limits

    with tempfile.TemporaryDirectory(prefix="trainjudge-probe-") as folder:
        code = Path(folder)
        code.chmod(0o755)
        box = code / "box"
        box.mkdir()
        job = Job(
            argv=(sys.executable, "-c", TRIAL, str(box)),
            code=code,
            read_only=(),
            writable=(box,),
            environment={},
            limits=Limits(),
        )
        try:
            with sandbox.start(job) as running:
                select.select([running], [], [], TRIAL_SECONDS)
                ending = running.stop()
                log = running.log().strip()
        except (TrainjudgeError, OSError) as error:
            return str(error)
    if ending.reason is EndReason.EXITED and ending.exit_status == 0 and log.endswith("alive"):
        return None
    if ending.reason is EndReason.STOPPED:
        return f"a trivial command took more than {TRIAL_SECONDS:g} seconds"
    return (log.splitlines() or [ending.detail])[-1] + _advice(sandbox.level)


def _advice(level: Level) -> str:
    if level is not Level.BUBBLEWRAP:
        return ""
    if os.geteuid() == 0:
        return " (inside a container, bubblewrap needs the right to make namespaces: CAP_SYS_ADMIN)"
    return (
        " (user namespaces may be switched off: see the sysctls user.max_user_namespaces and "
        "kernel.apparmor_restrict_unprivileged_userns)"
    )
