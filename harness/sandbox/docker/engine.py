"""The container engine of this machine and the project's image in it: found, checked, or refused in a line.

The standard library only, until an engine is really there: the Docker SDK is imported by `connect`.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.errors import Code, InputError

if TYPE_CHECKING:
    from docker import APIClient

DEFAULT_SOCKET: Final = "unix:///var/run/docker.sock"
# An engine that is there answers in milliseconds; one that hangs must not hold a judge up.
LOOK_SECONDS: Final = 5.0
VARIABLES: Final = "TRAINJUDGE_"
BUILD: Final = "`make image` builds it"
INSTALL: Final = (
    "install Docker's engine (`apt-get install docker.io`) and start it, or start podman's "
    "(`podman system service`) and name its socket in DOCKER_HOST"
)


@dataclass(frozen=True)
class Image:
    """An image of this project, as the engine knows it.

    Attributes:
        name: as it was asked for.
        digest: "sha256:..." of its configuration; containers are made of this, not of the name.
        python: absolute path of its interpreter.
        hparams_sha256: of the benchmark that it was built for.
        judges_variables: names of those in its environment that are for a judge inside of it.
    """

    name: str
    digest: str
    python: str
    hparams_sha256: str
    judges_variables: tuple[str, ...] = ()


def default_image() -> str:
    """The image's name where none is given: $TRAINJUDGE_IMAGE, or `validator`."""
    return os.environ.get("TRAINJUDGE_IMAGE") or "validator"


def socket_address() -> str:
    """Of the engine: $DOCKER_HOST or the usual place.

    Raises InputError for an engine that is not on this machine: the judge and its ranks share folders
    and Unix sockets.
    """
    address = os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET
    if not address.startswith("unix://"):
        raise _unavailable(
            f"DOCKER_HOST is {address}, but the judge needs an engine on its own machine: "
            "unix://<its socket>"
        )
    return address


def connect(seconds: float | None = LOOK_SECONDS) -> "APIClient":
    """A client of this machine's engine.

    Args:
        seconds: how long any one answer may take; None: for ever.

    Raises:
        InputError: SANDBOX_UNAVAILABLE, with what is missing and what to do.
    """
    address = socket_address()
    path = address.removeprefix("unix://")
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise _unavailable(f"{path} is no socket; {INSTALL}")
    except OSError as error:
        raise _unavailable(f"no container engine: {path}: {error.strerror}; {INSTALL}") from None
    if not os.access(path, os.R_OK | os.W_OK):
        raise _unavailable(
            f"{path} is closed to you: run the judge as root, or become a member of its group "
            "(`usermod -aG docker <you>`; that group is as powerful as root)"
        )
    try:
        from docker import APIClient
    except ImportError:
        raise _unavailable(
            "the Docker SDK for Python is missing; `pip install 'docker>=7'`"
        ) from None
    with answering():
        return APIClient(base_url=address, version="auto", timeout=seconds)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turns the failure of a conversation with the engine into InputError(SANDBOX_UNAVAILABLE)."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        raise _unavailable(
            f"the container engine at {socket_address()} does not answer ({_innermost(error)}); "
            "is it running?"
        ) from None


def check_engine(client: "APIClient") -> None:
    """Refuse an engine that would not isolate as `docs/sandbox.md` says. Raises InputError."""
    information = client.info()
    options = [str(option) for option in information.get("SecurityOptions") or ()]
    if any(option.startswith("name=rootless") for option in options):
        raise _unavailable(
            "this engine is rootless, so the kernel would not know a container's user as one that "
            "the judge can give files to; use an engine that runs as root, or level bubblewrap"
        )
    if any(option.startswith("name=userns") for option in options):
        raise _unavailable(
            "this engine changes user ids (userns-remap), so a container could not write what the "
            "judge gives it; use an engine without it, or level bubblewrap"
        )
    filtered = [option for option in options if option.startswith("name=seccomp")]
    if not filtered or any("unconfined" in option for option in filtered):
        raise _unavailable(
            "this engine filters no system calls; start it with its default seccomp profile"
        )
    kernel, ours = information.get("KernelVersion"), os.uname().release
    if kernel != ours:
        raise _unavailable(
            f"this engine runs on another machine or in a virtual one (kernel {kernel}, here "
            f"{ours}), with which the judge cannot share Unix sockets"
        )


def usable_image(name: str | None = None, hparams_sha256: str | None = None) -> Image:
    """The image, of an engine that isolates, for a benchmark. Takes some hundredths of a second.

    Args:
        name: or digest; None: `default_image()`.
        hparams_sha256: of the benchmark; None: any.

    Raises:
        InputError: SANDBOX_UNAVAILABLE, with what is wrong and what to do.
    """
    with answering(), contextlib.closing(connect()) as client:
        check_engine(client)
        image = find_image(client, name)
    if hparams_sha256 is not None:
        check_benchmark(image, hparams_sha256)
    return image


def find_image(client: "APIClient", name: str | None = None) -> Image:
    """Look an image up by name or digest. Raises InputError when it is absent, or not the project's."""
    from importlib.metadata import version

    from docker.errors import APIError, ImageNotFound

    from harness.benchmark import image_labels as labels

    name = name or default_image()
    try:
        found = client.inspect_image(name)
    except ImageNotFound:
        raise _unavailable(f"there is no image {name}; {BUILD}") from None
    except APIError as error:
        raise _unavailable(f"image {name}: {error.explanation or error}") from None
    config = found.get("Config") or {}
    marks = config.get("Labels") or {}
    python = marks.get(labels.LABEL_PYTHON)
    if not python:
        raise _unavailable(
            f"{name} is no image of this project (no label {labels.LABEL_PYTHON}); {BUILD}"
        )
    if config.get("Volumes"):
        raise _unavailable(
            f"{name} declares a volume, which would be a disk without a limit in the sandbox; "
            "remove VOLUME from its Dockerfile"
        )
    for label, package in (
        (labels.LABEL_TORCH, "torch"),
        (labels.LABEL_TRANSFORMERS, "transformers"),
        (labels.LABEL_VERSION, "trainjudge"),
    ):
        theirs, ours = str(marks.get(label, "")), version(package)
        # "+cpu", "+cu130": the build is the image's own affair.
        if theirs.partition("+")[0] != ours.partition("+")[0]:
            raise _unavailable(
                f"image {name} has {package} {theirs or 'unknown'}, the judge {ours}; {BUILD} anew"
            )
    names = [str(variable).partition("=")[0] for variable in config.get("Env") or ()]
    return Image(
        name,
        found["Id"],
        python,
        hparams_sha256=str(marks.get(labels.LABEL_HPARAMS, "")),
        judges_variables=tuple(each for each in names if each.startswith(VARIABLES)),
    )


def check_benchmark(image: Image, hparams_sha256: str) -> None:
    """Raises InputError when the image was built for another benchmark."""
    if image.hparams_sha256 != hparams_sha256:
        raise _unavailable(
            f"image {image.name} was built for another benchmark (hparams "
            f"{image.hparams_sha256[:12] or 'unknown'}, wanted {hparams_sha256[:12]}); "
            f"`make image HPARAMS=...` builds one, --image names it"
        )


def _unavailable(message: str) -> InputError:
    return InputError(Code.SANDBOX_UNAVAILABLE, message)


def _innermost(error: BaseException) -> str:
    """The system's own words, which the SDK wraps several times."""
    seen: BaseException = error
    for _ in range(10):
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        inner = next((part for part in seen.args if isinstance(part, BaseException)), None)
        inner = inner or getattr(seen, "reason", None) or seen.__cause__ or seen.__context__
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return str(error)
