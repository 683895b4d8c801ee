"""What can be said of the image without an engine: its labels, its entry, and the caller's folder."""

import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.image_labels import IMAGE_PYTHON, image_facts
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError, SubmissionError
from harness.image.build import build, find_docker, seal
from harness.image.entry import expand, read_submission
from harness.results import result_place
from harness.sandbox import judge_container, user
from harness.sandbox.environment import SHUT_OUT_GROUP
from harness.sandbox.judge_container import check_rights, exposure, outward_interfaces
from tests.project import ROOT

yaml = pytest.importorskip("yaml")  # transformers brings it

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMMANDS = {"run", "check", "doctor"}


def test_the_dockerfile_sets_every_label_from_the_argument_that_the_build_gives(
    loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    facts = image_facts(loaded, snapshot.manifest)
    set_there = dict(re.findall(r'(?m)^(?:LABEL|     ) (org\.[\w.]+)="(.*?)"', DOCKERFILE))
    for name, value in facts.build_arguments().items():
        assert DOCKERFILE.count(f" {name}=") == 2, f"{name}: to be compared, and for the label"
        set_there = {
            label: text.replace(f"${{{name}}}", value) for label, text in set_there.items()
        }
    assert {label: set_there.get(label) for label in facts.labels()} == facts.labels()
    assert IMAGE_PYTHON in DOCKERFILE


def test_the_project_is_closed_to_the_group_that_every_sandbox_is_in() -> None:
    folder = "/opt/trainjudge/project"
    assert f"chgrp {SHUT_OUT_GROUP} {folder} && chmod 705 {folder}" in DOCKERFILE


def test_labels_name_public_versions_so_that_a_gpu_build_matches_a_cpu_one(
    loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    assert "+" not in image_facts(loaded, snapshot.manifest).torch


def test_a_build_whose_labels_would_lie_fails(loaded: LoadedHparams, snapshot: Snapshot) -> None:
    facts = image_facts(loaded, snapshot.manifest)
    wrong = facts.build_arguments() | {"MODEL_SHA256": "0" * 64}
    with pytest.raises(InputError, match="MODEL_SHA256") as caught:
        seal(loaded, wrong)
    assert caught.value.code is Code.BAD_ARGUMENT


def test_an_installed_judge_builds_no_image(
    loaded: LoadedHparams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.image.build.PROJECT", tmp_path)
    with pytest.raises(InputError, match="from a checkout"):
        build(loaded, "validator", [], lambda line: None)


def test_hparams_outside_of_the_project_cannot_get_into_an_image(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    elsewhere = loaded.model_copy(update={"path": tmp_path / "hparams.json"})
    with pytest.raises(InputError, match="lies outside"):
        build(elsewhere, "validator", [], lambda line: None)


def stand_in(folder: Path, script: str) -> str:
    """A `docker` that answers as some client does."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def test_a_client_that_cannot_build_with_buildkit_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = stand_in(tmp_path / "bare", 'case "$1" in version) echo 28.2.2;; *) exit 1;; esac')
    old = stand_in(tmp_path / "old", 'case "$1" in version) echo 20.10.24;; *) exit 1;; esac')
    plugin = stand_in(
        tmp_path / "plugin", 'case "$1" in buildx) echo v0.20;; *) echo 28.2.2;; esac'
    )
    monkeypatch.delenv("DOCKER", raising=False)
    for good in (old, plugin):
        monkeypatch.setenv("PATH", f"{bare}:{good}")
        assert find_docker() == f"{good}/docker"
    monkeypatch.setenv("PATH", bare)
    with pytest.raises(InputError, match="buildx"):
        find_docker()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="install Docker"):
        find_docker()


def test_compose_and_the_docs_give_the_container_what_the_judge_needs_and_no_more() -> None:
    rights = [*judge_container.NEEDED, "SYS_PTRACE"]
    service = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert service["validator"]["cap_add"] == rights
    assert service["validator"]["cap_drop"] == ["ALL"]
    assert service["validator"]["network_mode"] == "none"
    assert service["validator"]["read_only"] is True
    # Whoever serves pages needs no rights, and is not started where somebody only judges a file.
    assert service["server"]["cap_drop"] == ["ALL"] and "cap_add" not in service["server"]
    assert service["server"]["user"] != "0:0" and service["server"]["read_only"] is True
    profiles = {name: each["profiles"] for name, each in service.items()}
    assert profiles.pop("validator") == ["judge"]
    assert set(map(tuple, profiles.values())) == {("board",)}
    text = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
    command = text.split("docker run --rm --network none")[1].split("```")[0]
    assert re.findall(r"--cap-add (\w+)", command) == rights


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], ["--help"]),
        (["submission.py"], ["run", "submission.py"]),
        (["absent.py", "--runs", "1"], ["run", "absent.py", "--runs", "1"]),
        (["-", "--json", "-"], ["run", "-", "--json", "-"]),
        (["run", "a.py"], ["run", "a.py"]),
        (["doctor", "--json"], ["doctor", "--json"]),
        (["--help"], ["--help"]),
        (["dcotor"], ["dcotor"]),
    ],
)
def test_a_bare_file_means_run_and_commands_stay_what_they_are(
    given: list[str], meant: list[str]
) -> None:
    assert expand(given, COMMANDS) == meant


def test_a_file_without_a_suffix_is_run_and_one_named_as_a_command_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "doctor"):
        (tmp_path / name).touch()
    assert expand(["mine"], COMMANDS) == ["run", "mine"]
    assert expand(["doctor"], COMMANDS) == ["doctor"]


def test_standard_input_is_not_read_to_its_end() -> None:
    endless = io.BytesIO(b"#" * 2**22)
    with pytest.raises(SubmissionError) as caught:
        read_submission(endless)
    assert caught.value.code is Code.FILE_TOO_LARGE
    assert endless.tell() <= 2**20 + 1


def test_every_missing_capability_is_named() -> None:
    with pytest.raises(InputError) as caught:
        check_rights(0, 1 << judge_container.NEEDED["SETUID"])
    for name in ("CHOWN", "DAC_OVERRIDE", "SETGID"):
        assert f"--cap-add {name}" in caught.value.message
    assert "SETUID" not in caught.value.message
    check_rights(0, sum(1 << bit for bit in judge_container.NEEDED.values()))


def test_only_an_interface_that_is_up_and_leads_outward_is_a_network(tmp_path: Path) -> None:
    for name, flags in (("lo", 0x49), ("tunl0", 0x80), ("eth0", 0x1003)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flags").write_text(f"{flags:#x}\n")
    assert outward_interfaces(tmp_path) == ["eth0"]


def test_outside_of_a_container_nothing_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(judge_container.MARK, raising=False)
    assert exposure() == []


def test_judges_in_containers_take_user_ids_that_the_hosts_judge_never_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host's judge ends a sandbox by signalling its user id, which reaches into containers."""
    monkeypatch.setenv(judge_container.MARK, "1")
    taken = user.allocate_user()
    taken.lock.close()
    assert taken.number in user.CONTAINER_USERS
    assert not set(user.CONTAINER_USERS) & set(user.HOST_USERS)


@pytest.fixture
def others_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder inside a container that belongs to somebody else."""
    if os.geteuid() != 0:
        pytest.skip("acting as another user needs root")
    with tempfile.TemporaryDirectory(prefix="trainjudge-work-") as name:
        folder = Path(name)
        os.chown(folder, 1234, 1234)
        monkeypatch.chdir(folder)
        monkeypatch.setenv(judge_container.MARK, "1")
        yield folder


def test_a_result_belongs_to_the_owner_of_the_folder_and_root_is_root_again(
    others_folder: Path,
) -> None:
    place = result_place("train.py", None)
    assert place is not None
    folder = others_folder / place.parent
    assert (folder.stat().st_uid, folder.stat().st_gid) == (1234, 1234)
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_a_closed_folder_costs_the_file_unless_it_was_asked_for(others_folder: Path) -> None:
    others_folder.chmod(0o500)
    assert result_place("train.py", None) is None
    with pytest.raises(InputError):
        result_place("train.py", Path("wanted.json"))
