"""Engines and images that level `docker` does not take: one clear line each, and what to do."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.image_labels import LABEL_HPARAMS, LABEL_PYTHON, LABEL_TORCH
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.sandbox import Level, choose
from harness.sandbox.docker.engine import check_engine, usable_image
from tests.docker_images import labels

pytest_plugins = ("tests.sandbox_levels", "tests.docker_images")


def refusal(name: str | None = None, hparams_sha256: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        usable_image(name, hparams_sha256)
    assert caught.value.code is Code.SANDBOX_UNAVAILABLE
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_missing_engine_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert "apt-get install docker.io" in refusal()
    assert choose("auto", hparams_sha256="0" * 64).level is not Level.DOCKER


def test_a_socket_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert "Connection refused" in refusal() and str(path) in refusal()


def test_an_engine_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    assert "needs an engine on its own machine" in refusal()


class Engine:
    """Answers as an engine that cannot be had here would."""

    def __init__(self, *options: str, kernel: str | None = None) -> None:
        self._options, self._kernel = options, kernel or os.uname().release

    def info(self) -> dict[str, Any]:
        return {"SecurityOptions": list(self._options), "KernelVersion": self._kernel}


SECCOMP = "name=seccomp,profile=builtin"


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (Engine(SECCOMP, "name=rootless"), "is rootless"),
        (Engine(SECCOMP, "name=userns"), "userns-remap"),
        (Engine("name=apparmor"), "filters no system calls"),
        (Engine("name=seccomp,profile=unconfined"), "filters no system calls"),
        (Engine(SECCOMP, kernel="5.15.0-vm"), "a virtual one"),
    ],
    ids=["rootless", "userns", "no-seccomp", "unconfined", "other-kernel"],
)
def test_an_engine_that_would_not_isolate_is_refused(engine: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_engine(engine)


def test_an_engine_with_its_defaults_is_taken() -> None:
    check_engine(Engine("name=apparmor", SECCOMP))  # type: ignore[arg-type]


def test_an_absent_image_is_refused_with_how_to_build_it(engine: Any) -> None:
    assert "there is no image no-such-image; `make image`" in refusal("no-such-image")


def test_an_image_of_something_else_is_refused(make_image: Any) -> None:
    assert f"no label {LABEL_PYTHON}" in refusal(make_image())


def test_an_image_of_another_torch_is_refused(
    make_image: Any, loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    name = make_image(*labels(loaded, snapshot, **{LABEL_TORCH: "1.0.0"}))
    assert "has torch 1.0.0" in refusal(name)


def test_an_image_of_another_benchmark_is_refused(
    make_image: Any, loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    name = make_image(*labels(loaded, snapshot, **{LABEL_HPARAMS: "f" * 64}))
    assert usable_image(name).hparams_sha256 == "f" * 64
    assert "was built for another benchmark" in refusal(name, loaded.sha256)


def test_an_image_with_a_volume_is_refused(
    make_image: Any, loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    name = make_image(*labels(loaded, snapshot), "VOLUME /data")
    assert "declares a volume" in refusal(name)


def test_an_image_whose_program_does_not_run_is_no_level_that_works(
    make_image: Any, loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    name = make_image(*labels(loaded, snapshot))
    with pytest.raises(InputError, match="No such file"):
        choose("docker", image=name, hparams_sha256=loaded.sha256)


def test_an_image_is_for_level_docker_alone() -> None:
    with pytest.raises(InputError, match="--image is for the sandbox docker"):
        choose("none", image="validator")


def test_auto_takes_an_image_of_the_very_benchmark_and_no_other(docker_level: Level) -> None:
    image = usable_image()
    taken = choose("auto", hparams_sha256=image.hparams_sha256)
    assert (taken.level, taken.image) == (docker_level, image)
    assert choose("auto", hparams_sha256="f" * 64).level is not docker_level
