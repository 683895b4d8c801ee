"""Level `docker`: what the engine is asked for, what it really does, and that nothing is left of it.

What every level has to do is tested in conformance/, at this level too where an engine and the project's
image are there.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.errors import Code, JudgeError, Verdict
from harness.escapes.decoys import processes_with
from harness.sandbox import Job, Level, Sandbox
from harness.sandbox.cgroup import ControlGroup
from harness.sandbox.docker import container as level
from harness.sandbox.docker.engine import Image, usable_image
from harness.sandbox.docker.leftovers import remove_containers, sandbox_containers
from harness.sandbox.judge_process import judge_lives, this_process
from tests.judging import Judge, explain
from tests.project import ROOT
from tests.sandbox_levels import Available
from tests.sandbox_programs import HEADS, ended_by_itself, hydra, make_job, wait_for

pytest_plugins = ("tests.sandbox_levels", "tests.docker_images", "tests.judging")

IMAGE = Image("validator", "sha256:" + "1" * 64, "/opt/python", "2" * 64)

# What the engine is asked for.


def test_the_container_is_as_closed_as_the_engine_can_make_it(folder: Path) -> None:
    job = make_job(folder, "", memory_bytes=2**30, processes=100, tmp_bytes=2**20)
    made = level.container(job, IMAGE, 60600)
    assert made.create["image"] == IMAGE.digest  # a name may mean another image tomorrow
    assert made.create["user"] == "60600:60600"
    host = made.host
    assert host["group_add"] == [61100]  # to which the image's project is closed
    assert host["network_mode"] == "none"
    assert host["read_only"] is True
    assert host["cap_drop"] == ["ALL"] and "cap_add" not in host
    # The engine's own seccomp profile: a `seccomp=` here would replace it.
    assert host["security_opt"] == ["no-new-privileges"]
    assert host["ipc_mode"] == "private"
    assert host["init"] is True
    assert host["mem_limit"] == host["memswap_limit"] == 2**30
    assert host["pids_limit"] == 150  # half above what the supervisor allows
    assert host["nano_cpus"] == len(os.sched_getaffinity(0)) * 10**9
    assert host["shm_size"] == 2**20
    assert list(host["tmpfs"]) == ["/tmp"] and "size=1048576" in host["tmpfs"]["/tmp"]
    assert {limit["name"] for limit in host["ulimits"]} == {"core", "nofile", "fsize", "nproc"}
    assert host["log_config"]["config"] == {"max-size": str(job.limits.log_bytes), "max-file": "1"}
    assert not {"privileged", "devices", "device_requests", "pid_mode", "binds"} & set(host)


def test_only_the_outbox_is_mounted_to_be_written(folder: Path) -> None:
    job = make_job(folder, "")
    inbox = folder / "inbox"
    inbox.mkdir()
    made = level.container(Job(**{**vars(job), "read_only": (inbox,)}), IMAGE, 60600)
    writable = {mount["Target"] for mount in made.host["mounts"] if not mount["ReadOnly"]}
    assert writable == {str(folder / "outbox")}
    same_inside = {m["Source"] for m in made.host["mounts"] if m["Source"] == m["Target"]}
    assert same_inside == {str(folder / name) for name in ("code", "inbox", "outbox")}


def test_a_judge_that_is_no_root_gives_its_own_user_id(folder: Path) -> None:
    made = level.container(make_job(folder, ""), IMAGE, None)
    assert made.create["user"] == f"{os.geteuid()}:{os.getegid()}"


def test_the_images_python_takes_the_place_of_the_judges(folder: Path) -> None:
    made = level.container(make_job(folder, "", "argument"), IMAGE, 60600)
    assert made.create["entrypoint"][0] == IMAGE.python
    settings = json.loads(made.create["entrypoint"][-1])
    assert settings["argv"] == [IMAGE.python, "-m", "program", "argument"]
    assert sys.prefix not in json.dumps(made.create["environment"])
    assert made.create["environment"]["PYTHONPATH"] == str(folder / "code")


def test_variables_for_a_judge_inside_are_taken_away(folder: Path) -> None:
    image = replace(IMAGE, judges_variables=("TRAINJUDGE_HOME", "TRAINJUDGE_HPARAMS"))
    given = level.container(make_job(folder, ""), image, 60600).create["environment"]
    absent = {name for name, value in given.items() if value is None}  # the SDK's word for it
    assert absent == {"TRAINJUDGE_HOME", "TRAINJUDGE_HPARAMS"}


def test_proxies_and_their_passwords_stay_out(folder: Path) -> None:
    assert level.container(make_job(folder, ""), IMAGE, 1).create["use_config_proxy"] is False


def test_exactly_as_many_gpus_as_ranks_are_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb,GPU-cc")
    job = make_job(folder, "")
    made = level.container(Job(**{**vars(job), "gpus": 2}), IMAGE, 60600)
    (request,) = made.host["device_requests"]
    assert request["device_ids"] == ["GPU-aa", "GPU-bb"]
    # Inside they are 0 and 1, whatever they are outside.
    assert "CUDA_VISIBLE_DEVICES" not in made.create["environment"]
    without = level.container(job, IMAGE, 60600)
    assert without.create["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"


# How it ends.


def containers_of(judge: int) -> list[str]:
    """Names of the sandboxes' containers that the process with this id started."""
    return [each.name for each in sandbox_containers() if f"trainjudge-{judge}-" in each.name]


def wait_until_removed(judge: int) -> None:
    until = time.monotonic() + 20
    while (left := containers_of(judge)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


JUDGE = """
import sys, time
from pathlib import Path
sys.path[:0] = ["."]
from tests.sandbox_programs import hydra
from harness.sandbox import Level, Sandbox
with Sandbox(Level.DOCKER).start(hydra(Path(sys.argv[1]), "stay", sys.argv[2])) as running:
    print(running._supervisor.pid, flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def other_judge(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A judge whose sandbox is full of processes; with the process id of its supervisor."""
    marker = uuid.uuid4().hex
    hydra(folder, "stay", marker)  # writes the program
    judge = subprocess.Popen(
        [sys.executable, "-c", JUDGE, str(folder), marker],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert judge.stdout is not None
        supervisor = int(judge.stdout.readline())
        for name in HEADS:
            wait_for(folder / "outbox" / name, 30)
        yield judge, supervisor
        assert processes_with(marker) == []
    finally:
        judge.kill()
        judge.wait()


def test_an_ending_is_told_only_after_the_container_is_gone(
    docker_level: Level, folder: Path
) -> None:
    with Sandbox(docker_level).start(make_job(folder, "")) as running:
        ended_by_itself(running)
        assert containers_of(os.getpid()) == []


def test_a_judge_that_is_killed_leaves_no_container(docker_level: Level, folder: Path) -> None:
    with other_judge(folder) as (judge, _):
        assert len(containers_of(judge.pid)) == 1
        judge.send_signal(signal.SIGKILL)
        judge.wait()
        wait_until_removed(judge.pid)


def test_a_supervisor_asked_to_end_leaves_that_to_the_judge(
    docker_level: Level, folder: Path
) -> None:
    with other_judge(folder) as (judge, supervisor):
        os.kill(supervisor, signal.SIGTERM)
        time.sleep(0.5)
        assert len(containers_of(judge.pid)) == 1
        judge.kill()
        judge.wait()
        wait_until_removed(judge.pid)


def test_what_a_killed_judge_and_supervisor_leave_is_found_and_removed(
    docker_level: Level, folder: Path
) -> None:
    with other_judge(folder) as (judge, supervisor):
        (name,) = containers_of(judge.pid)
        os.kill(supervisor, signal.SIGKILL)
        # The judge lives: its container is not ours to remove.
        assert name not in remove_containers()[0]
        assert [each.judge for each in sandbox_containers() if each.name == name] == [True]

        judge.kill()
        judge.wait()
        assert [each.judge for each in sandbox_containers() if each.name == name] == [False]
        removed, kept = remove_containers()
        assert name in removed and kept == []
        assert containers_of(judge.pid) == []


def test_a_container_that_the_engine_refuses_is_our_own_failure(engine: Any, folder: Path) -> None:
    with (
        # Told again when the block is left, and not replaced by the silence that follows it.
        pytest.raises(JudgeError, match=r"(?i)no such image"),
        Sandbox(Level.DOCKER, IMAGE).start(make_job(folder, "")) as running,
    ):
        ended_by_itself(running)


def test_a_judge_is_known_by_more_than_a_number() -> None:
    mine = this_process()
    namespace, pid, start = mine.split(" ")
    assert judge_lives(mine) is True
    assert judge_lives(f"{namespace} {pid} {int(start) + 1}") is False  # a reused id
    assert judge_lives(f"pid:[1] {pid} {start}") is None  # of another container
    assert judge_lives("") is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert judge_lives(f"{namespace} {ended.pid} {start}") is False


def test_a_control_group_of_another_name_is_not_believed() -> None:
    """A judge in a container of its own sees other processes under the engine's ids."""
    assert ControlGroup.of(os.getpid(), uuid.uuid4().hex) is None


# Whole evaluations.


@pytest.fixture(scope="module")
def sandbox(available: Available) -> Sandbox:
    """In place of the usual one of `judging`."""
    if not available[Level.DOCKER].available:
        pytest.skip(f"level docker: {available[Level.DOCKER].reason}")
    return Sandbox(Level.DOCKER, usable_image())


def test_an_honest_file_is_accepted_and_the_result_names_the_image(
    judge: Judge, quick: LoadedHparams, sandbox: Sandbox
) -> None:
    result = judge(ROOT / "submissions" / "train_ep.py", quick, 2)
    assert result.verdict is Verdict.ACCEPTED, explain(result)
    assert result.isolation == "docker"
    assert sandbox.image is not None and result.benchmark.image == sandbox.image.digest
    assert containers_of(os.getpid()) == []


def test_running_out_of_memory_is_told_from_a_failure(judge: Judge, quick: LoadedHparams) -> None:
    """The kernel ends a rank before the supervisor knows why."""
    result = judge(ROOT / "tests" / "submissions" / "memory_hog.py", quick, 1)
    assert (result.verdict, result.code) == (Verdict.REJECTED, Code.MEMORY_LIMIT), explain(result)
    assert "3072.0 MiB are allowed" in result.message
    assert containers_of(os.getpid()) == []
