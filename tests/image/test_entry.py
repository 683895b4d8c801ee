"""The image as its users meet it: `docker run validator submission.py`, hardened, plain and misused."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.sandbox.judge_container import NEEDED, WORK
from tests.container_image import docker
from tests.project import ROOT

pytest_plugins = ("tests.container_image",)
pytestmark = pytest.mark.container

# As docs/container.md has them.
HARDENED = (
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    *(f"--cap-add={name}" for name in (*NEEDED, "SYS_PTRACE")),
    "--security-opt=no-new-privileges",
)
OWNER = 1234
# Quick to judge: the one is rejected without being run, the other before any reference is computed.
FAILING = b"no_inner_steps = True\n"
RAISING = b"""
def get_strategy():
    return {"dp_size": 2}

def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass

raise RuntimeError("at import")
"""
# Whatever it can do of these is in the message of the exception that it ends with.
PRYING = """
import os, signal, socket

def get_strategy():
    return {"dp_size": 2}

def read(path):
    with open(path, "rb") as file:
        file.read(1)

def write(path):
    with open(path, "w") as file:
        file.write("x")

def route():
    # Sends nothing; it only asks the kernel for a way out.
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))

ATTEMPTS = {
    "list the packed corpus": lambda: [
        os.listdir(snapshot.path + "/corpus") for snapshot in os.scandir("/opt/trainjudge/snapshots")
    ],
    "read the corpus as text": lambda: read("/opt/trainjudge/project/assets/kjv.txt.gz"),
    "list the judge's code": lambda: os.listdir("/opt/trainjudge/project"),
    "read the judge's code": lambda: read("/opt/trainjudge/project/harness/evaluate.py"),
    "read the benchmark": lambda: read("/opt/trainjudge/project/hparams.json"),
    "leave the group that is shut out": lambda: os.setgroups([]),
    "read the caller's closed file": lambda: read("WORK/secret"),
    "read the judge's environment": lambda: read("/proc/1/environ"),
    "read the judge's memory": lambda: read("/proc/1/mem"),
    "signal the judge": lambda: os.kill(1, signal.SIGCONT),
    "write beside the train file": lambda: write("WORK/mine"),
    "write into the image": lambda: write("/opt/trainjudge/mine"),
    "become root": lambda: os.setuid(0),
    "find a way out": route,
}

def setup(model, device, num_gpus):
    done = []
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    raise RuntimeError(f"user {os.getuid()} could: {done}")

def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    pass
""".replace("WORK", str(WORK))


@dataclass(frozen=True)
class Ran:
    """A container that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """Of a run with `--json -`."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


def start(
    image: str, arguments: Sequence[str], options: Sequence[str] = (), stdin: bytes | None = None
) -> Ran:
    interactive = () if stdin is None else ("--interactive",)
    done = docker(["run", "--rm", *interactive, *options, image, *arguments], stdin)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder of an ordinary user's, closed to others, as `docker run -v "$PWD:/work"` would get it."""
    with tempfile.TemporaryDirectory(prefix="trainjudge-work-") as name:
        yield Path(name)


def give(work: Path, source: bytes) -> None:
    """Put the train file there; root gives everything to another user."""
    (work / "submission.py").write_bytes(source)
    (work / "submission.py").chmod(0o600)
    if os.geteuid() == 0:
        for path in (work / "submission.py", work):
            os.chown(path, OWNER, OWNER)


def test_an_honest_file_is_accepted_in_a_hardened_container_and_its_result_is_the_callers(
    image: str, work: Path
) -> None:
    give(work, (ROOT / "submissions" / "train_ep.py").read_bytes())
    ran = start(image, ["submission.py"], [*HARDENED, f"--volume={work}:/work"])
    assert ran.status == 0, ran.stdout + ran.stderr
    assert "ACCEPTED" in ran.stdout
    [file] = (work / "results").iterdir()
    assert file.stat().st_uid == work.stat().st_uid
    result = json.loads(file.read_text())
    assert result["verdict"] == "accepted"
    assert result["isolation"] == "user"
    assert result["submission"]["name"] == "submission.py"
    assert not [warning for warning in result["warnings"] if "container" in warning]


def test_a_file_that_trains_wrongly_is_rejected_from_standard_input(image: str) -> None:
    source = (ROOT / "tests" / "submissions" / "wrong" / "ddp_no_sync.py").read_bytes()
    ran = start(image, ["-", "--runs=1", "--json=-"], HARDENED, source)
    assert ran.status == 1, ran.stdout + ran.stderr
    assert (ran.result["verdict"], ran.result["code"]) == ("rejected", "update_mismatch")


def test_the_plain_command_works_and_warns_of_the_network(image: str, work: Path) -> None:
    give(work, RAISING)
    ran = start(image, ["submission.py"], [f"--volume={work}:/work"])
    assert ran.status == 1, ran.stdout + ran.stderr
    assert "REJECTED" in ran.stdout
    [file] = (work / "results").iterdir()
    result = json.loads(file.read_text())
    assert result["code"] == "import_failed"
    assert result["isolation"] == "user"
    assert [warning for warning in result["warnings"] if "--network none" in warning]


def test_a_privileged_container_and_an_open_folder_are_warned_of(image: str, work: Path) -> None:
    give(work, FAILING)
    work.chmod(0o777)
    # Of what --privileged gives; all of it cannot be had where the engine itself runs in a container.
    options = ["--cap-add=SYS_ADMIN", "--network=none", f"--volume={work}:/work"]
    ran = start(image, ["submission.py", "--json", "-"], options)
    assert ran.status == 1, ran.stdout + ran.stderr
    warnings = "\n".join(ran.result["warnings"])
    assert "--privileged" in warnings
    assert "/work is writable for everybody" in warnings
    assert "--network" not in warnings


def test_a_train_file_reaches_nothing_of_the_judge_or_the_caller(image: str, work: Path) -> None:
    give(work, PRYING.encode())
    (work / "secret").write_text("another's submission")
    (work / "secret").chmod(0o600)
    work.chmod(0o755)
    ran = start(image, ["submission.py", "--json=-"], [*HARDENED, f"--volume={work}:/work"])
    assert ran.status == 1, ran.stdout + ran.stderr
    assert ran.result["code"] == "setup_failed"
    message = ran.result["message"]
    assert message.endswith("could: []"), message
    assert " user 0 " not in message


def test_a_folder_that_cannot_be_written_costs_the_file_and_not_the_verdict(
    image: str, work: Path
) -> None:
    give(work, FAILING)
    ran = start(image, ["submission.py"], [*HARDENED, f"--volume={work}:/work:ro"])
    assert ran.status == 1, ran.stdout + ran.stderr
    assert "REJECTED" in ran.stdout
    assert "result: not kept" in ran.stdout


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_capability_is_named_and_no_weaker_level_is_taken(image: str, name: str) -> None:
    options = [option for option in HARDENED if option != f"--cap-add={name}"]
    ran = start(image, ["-"], options, FAILING)
    assert ran.status == 2
    assert f"--cap-add {name}\n" in ran.stderr


@pytest.mark.parametrize(
    ("options", "arguments", "advice"),
    [
        (["--read-only"], ["-"], "--tmpfs /tmp"),
        (["--user=1000"], ["-"], "--user"),
        (["--user=1000"], ["worker", "--once"], "--user"),
        ([], ["no_such_file.py"], "No such file"),
        ([], ["no-such-command"], "No such command"),
        ([], ["run", "-", "--hparams=/nowhere.json"], "/nowhere.json"),
    ],
    ids=["no-tmp", "not-root", "not-root-worker", "no-file", "no-command", "no-hparams"],
)
def test_bad_input_is_said_in_words_with_the_callers_status(
    image: str, options: list[str], arguments: list[str], advice: str
) -> None:
    ran = start(image, arguments, options, FAILING)
    assert ran.status == 2, ran.stdout + ran.stderr
    assert advice in ran.stderr


def test_empty_and_endless_standard_input_are_refused(image: str) -> None:
    empty = start(image, ["-"], HARDENED, b"")
    assert (empty.status, "docker run -i" in empty.stderr) == (2, True)
    endless = start(image, ["-"], HARDENED, b"#" * (2**20 + 1))
    assert (endless.status, "file_too_large" in endless.stderr) == (1, True)


def test_other_commands_work_without_any_right(image: str) -> None:
    options = ["--network=none", "--read-only", "--cap-drop=ALL", "--user=1000"]
    assert "docker" not in start(image, ["--help"], options).stdout.splitlines()[1]
    file = "/opt/trainjudge/project/submissions/train_ep.py"
    checked = start(image, ["check", file], options)
    assert (checked.status, "nothing to mend" in checked.stdout) == (0, True)
    doctor = json.loads(start(image, ["doctor", "--json"], HARDENED).stdout)
    [user] = [each for each in doctor["sandboxes"] if each["level"] == "user"]
    assert user["available"], user["reason"]


def test_nothing_of_the_build_is_left_in_the_image(image: str) -> None:
    listing = (
        "ls -A /root/.cache /var/lib/apt/lists /run/secrets 2>/dev/null; "
        "find / -xdev \\( -name pip.conf -o -name '*.whl' -o -path '*/huggingface/token' \\); "
        "find /opt/trainjudge -xdev -perm -o+w ! -type l"
    )
    done = docker(["run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", listing])
    left = [line for line in done.stdout.decode().split("\n") if line and not line.endswith(":")]
    assert not left


def test_the_judge_in_a_container_ends_when_it_is_told_to(image: str) -> None:
    """`docker stop` sends SIGTERM to process 1, which the kernel ignores unless somebody handles it."""
    source = (ROOT / "submissions" / "train_ep.py").read_bytes()
    name = f"trainjudge-test-{os.getpid()}"
    with subprocess.Popen(
        ["docker", "run", "--rm", "--interactive", f"--name={name}", *HARDENED, image, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None and running.stderr is not None
        running.stdin.write(source)
        running.stdin.close()
        for line in running.stderr:
            if b"starting the ranks" in line:
                break
        began = time.monotonic()
        assert docker(["stop", "--time=60", name]).returncode == 0
        assert running.wait(60) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 30
