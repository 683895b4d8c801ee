"""How the image is built (`make image`).

Its labels (`harness.benchmark.image_labels`) are computed here, on the host; `seal`, a step of the
Dockerfile, compares them with the snapshot inside.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.image_labels import DEFAULT_IMAGE, image_facts
from harness.benchmark.manifest import read_manifest
from harness.benchmark.snapshot import default_directory
from harness.errors import Code, InputError
from harness.paths import PROJECT
from harness.phases import OnProgress


def build(loaded: LoadedHparams, tag: str, extra: Sequence[str], progress: OnProgress) -> int:
    """Preload on the host, compute the labels, run `docker build`.

    Args:
        loaded: the benchmark; its file has to lie in the project, or the image would lack it.
        tag: the image's name.
        extra: further arguments for `docker build`, such as `--build-arg BASE_IMAGE=...`.
        progress: told what is going on, a line at a time.

    Returns:
        The exit status of `docker build`.

    Raises:
        InputError, JudgeError: as `preload`; InputError where there is no usable `docker`.
    """
    from harness.benchmark.preload import preload

    if not (PROJECT / "Dockerfile").is_file():
        raise InputError(
            Code.BAD_ARGUMENT,
            "an image is built from a checkout of the project, and this judge is installed",
        )
    try:
        hparams = loaded.path.resolve().relative_to(PROJECT)
    except ValueError:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{loaded.path} lies outside of {PROJECT}: only what lies in it gets into the image",
        ) from None
    docker = find_docker()
    progress("the snapshot on this machine, for the labels")
    facts = image_facts(loaded, preload(loaded, progress=progress).manifest)
    arguments = {"HPARAMS": str(hparams), **facts.build_arguments()}
    command = [docker, "build", "--tag", tag]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    command += [*extra, str(PROJECT)]
    progress(f"{docker} build --tag {tag}")
    return subprocess.run(
        command, check=False, env=os.environ | {"DOCKER_BUILDKIT": "1"}
    ).returncode


def find_docker() -> str:
    """A `docker` that can build with BuildKit: $DOCKER, else the first on PATH that can.

    Raises InputError(SANDBOX_UNAVAILABLE).
    """
    if named := os.environ.get("DOCKER"):
        return named
    found = list(_commands("docker"))
    for candidate in found:
        if _builds(candidate):
            return candidate
    raise InputError(
        Code.SANDBOX_UNAVAILABLE,
        f"{found[0]} cannot build with BuildKit: install its buildx plugin (docker-buildx)"
        if found
        else "there is no `docker` on PATH: install Docker, or name a command that builds like it "
        "in $DOCKER",
    )


def _commands(name: str) -> Iterator[str]:
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if folder and (path := shutil.which(name, path=folder)):
            yield path


def _builds(docker: str) -> bool:
    """Before version 23 BuildKit is in the client itself, since then it is a plugin."""
    if _output([docker, "buildx", "version"]):
        return True
    client = _output([docker, "version", "--format", "{{.Client.Version}}"])
    major = client.partition(".")[0]
    return major.isdecimal() and int(major) < 23


def _output(command: list[str]) -> str:
    """Its standard output, also where it fails for want of an engine; empty where it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def seal(loaded: LoadedHparams, environment: Mapping[str, str]) -> None:
    """The last step of a build: the labels are true, and the corpus is closed to the sandbox.

    Args:
        loaded: the benchmark inside the image.
        environment: holds the Dockerfile's ARGs; an empty or absent one is not compared.

    Raises:
        InputError: BAD_ARGUMENT where a label would be wrong; SNAPSHOT_MISSING.
    """
    facts = image_facts(loaded, read_manifest(default_directory(loaded)))
    for name, found in facts.build_arguments().items():
        given = environment.get(name, "")
        if given and given != found:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"the build argument {name} is {given}, but inside the image it is {found}: build "
                "with `make image`, from the checkout and with the Python that judge",
            )
    if loaded.hparams.data.source == "embedded":
        loaded.resolve(loaded.hparams.data.file).chmod(0o600)


def main() -> NoReturn:
    """`python -m harness.image build|seal`; exit statuses as of `validator`."""
    from harness.benchmark.hparams import load_hparams
    from harness.cli import exit_statuses

    parser = argparse.ArgumentParser(prog="python -m harness.image", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="build the image; further options are docker's")
    sealer = commands.add_parser("seal", help="inside the Dockerfile: check what the labels say")
    for each in (builder, sealer):
        each.add_argument("--hparams", type=Path, help="default: as for validator")
    builder.add_argument("--tag", default=DEFAULT_IMAGE, help="name of the image")
    arguments, extra = parser.parse_known_args()
    if extra and arguments.command != "build":
        parser.error(f"unknown arguments: {' '.join(extra)}")
    with exit_statuses():
        loaded = load_hparams(arguments.hparams)
        if arguments.command == "seal":
            seal(loaded, os.environ)
            sys.exit(0)
        sys.exit(build(loaded, arguments.tag, extra, lambda line: print(f"· {line}", flush=True)))
