"""The image: what its labels say, and how it is built (`make image`).

An image is made for one benchmark. Its labels name it by the hashes of hparams, model and data and by the
versions of what computes with them, so that a judge on the host sees whether a container of it would
train the same thing. The labels are computed here, on the host; `seal`, a step of the Dockerfile,
compares them with the snapshot inside.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from harness.errors import Code, InputError
from harness.hparams import LoadedHparams
from harness.snapshot import Manifest, default_directory, read_manifest

DEFAULT_IMAGE = "validator"
# The interpreter inside, as the Dockerfile makes it.
IMAGE_PYTHON = "/opt/trainjudge/venv/bin/python"

LABEL_VERSION = "org.opencontainers.image.version"
LABEL_HPARAMS = "org.trainjudge.hparams.sha256"
LABEL_MODEL = "org.trainjudge.model.sha256"
LABEL_DATA = "org.trainjudge.data.sha256"
LABEL_TORCH = "org.trainjudge.torch"
LABEL_TRANSFORMERS = "org.trainjudge.transformers"
LABEL_PYTHON = "org.trainjudge.python"

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ImageFacts:
    """What an image was made for. Versions are public ones: `+cpu` and `+cu130` are the same torch.

    Attributes:
        hparams, model, data: SHA-256, hex, of the hparams file and of the snapshot's two parts.
        torch, transformers: of the libraries inside.
        trainjudge: of the judge.
    """

    hparams: str
    model: str
    data: str
    torch: str
    transformers: str
    trainjudge: str

    def labels(self) -> dict[str, str]:
        """The labels that the Dockerfile sets."""
        return {
            LABEL_VERSION: self.trainjudge,
            LABEL_HPARAMS: self.hparams,
            LABEL_MODEL: self.model,
            LABEL_DATA: self.data,
            LABEL_TORCH: self.torch,
            LABEL_TRANSFORMERS: self.transformers,
            LABEL_PYTHON: IMAGE_PYTHON,
        }

    def build_arguments(self) -> dict[str, str]:
        """The Dockerfile's ARGs."""
        return {
            "HPARAMS_SHA256": self.hparams,
            "MODEL_SHA256": self.model,
            "DATA_SHA256": self.data,
            "TORCH_VERSION": self.torch,
            "TRANSFORMERS_VERSION": self.transformers,
            "TRAINJUDGE_VERSION": self.trainjudge,
        }


def image_facts(loaded: LoadedHparams, manifest: Manifest) -> ImageFacts:
    """What an image for this benchmark, built from this project, has to be."""
    return ImageFacts(
        hparams=loaded.sha256,
        model=manifest.model_sha256,
        data=manifest.data_sha256,
        torch=_public(version("torch")),
        transformers=version("transformers"),
        trainjudge=version("trainjudge"),
    )


def _public(found: str) -> str:
    return found.partition("+")[0]


def build(loaded: LoadedHparams, tag: str, extra: Sequence[str], say: Callable[[str], None]) -> int:
    """Preload on the host, compute the labels, run `docker build`.

    Args:
        loaded: the benchmark; its file has to lie in the project, or the image would lack it.
        tag: the image's name.
        extra: further arguments for `docker build`, such as `--build-arg BASE_IMAGE=...`.
        say: told what is going on, a line at a time.

    Returns:
        The exit status of `docker build`.

    Raises:
        InputError, JudgeError: as `preload`; InputError where there is no usable `docker`.
    """
    from harness.preload import preload

    try:
        hparams = loaded.path.resolve().relative_to(PROJECT)
    except ValueError:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{loaded.path} lies outside of {PROJECT}: only what lies in it gets into the image",
        ) from None
    docker = find_docker()
    say("the snapshot on this machine, for the labels")
    facts = image_facts(loaded, preload(loaded, progress=say).manifest)
    arguments = {"HPARAMS": str(hparams), **facts.build_arguments()}
    command = [docker, "build", "--tag", tag]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    command += [*extra, str(PROJECT)]
    say(f"{docker} build --tag {tag}")
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
    from harness.cli import exit_statuses
    from harness.simulate import load_hparams

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


if __name__ == "__main__":
    main()
