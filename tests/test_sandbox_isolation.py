"""What a program in a sandbox can see, reach and do, and that honest work is still possible there."""

import contextlib
import json
import os
import time
import uuid
from pathlib import Path

import pytest
from sandbox_programs import make_job, processes_with, run, run_json

from harness.sandbox import EndReason, Job, Level, Sandbox, torchrun_argv

pytest_plugins = ("sandbox_levels",)
REPOSITORY = Path(__file__).resolve().parents[1]

SPY = """
import ctypes, json, os, resource, socket, sys
def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.strerror
    return "done"
def touch(path):
    open(path, "w").close()
    os.remove(path)  # at level none, as root, it works
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    return "done" if getattr(libc, name)(*arguments) >= 0 else os.strerror(ctypes.get_errno())
server = socket.create_server(("127.0.0.1", 0))
outside = socket.socket(); outside.settimeout(2)
print(json.dumps({
    "status": {k: status[k].split() for k in
               ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
                "Seccomp")},
    "environment": dict(os.environ),
    "files": {p: attempt(os.stat, p) for p in sys.argv[1:]},
    "writes": {p: attempt(touch, p + "/probe") for p in ("/", "/usr", "/dev", "/etc")},
    "interfaces": [name for _, name in socket.if_nameindex()],
    "loopback": attempt(socket.create_connection, server.getsockname()),
    "outside": attempt(outside.connect, ("192.0.2.1", 80)),
    "pids": [int(p) for p in os.listdir("/proc") if p.isdecimal()],
    "descriptors": len(os.listdir("/proc/self/fd")),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "user_namespace": call("unshare", 0x10000000),
    "system_v_memory": call("shmget", 0, 4096, 0o1600),
    "keyring": call("syscall", 250, 0, -3, 0) if os.uname().machine == "x86_64" else None,
}))
"""


def test_bubblewrap_shows_only_what_the_job_names(bubblewrap: Level, folder: Path) -> None:
    secret = folder / "judge" / "reference.safetensors"
    secret.parent.mkdir()
    secret.touch()
    shown = folder / "inbox"
    shown.mkdir()
    hidden = [secret, REPOSITORY / "pyproject.toml", Path.home() / ".bashrc", Path("/etc/shadow")]
    hidden += [Path("/home"), Path("/var"), Path("/etc/machine-id"), Path(f"/proc/1/root{secret}")]
    job = make_job(folder, SPY, str(shown), *map(str, hidden))
    seen = run_json(bubblewrap, Job(**{**vars(job), "read_only": (shown,)}))
    assert isinstance(seen["files"], dict)
    assert seen["files"].pop(str(shown)) == "done"
    assert set(seen["files"].values()) <= {"No such file or directory", "Permission denied"}
    assert seen["files"][str(secret)] == "No such file or directory"
    assert isinstance(seen["writes"], dict)
    assert set(seen["writes"].values()) == {"Read-only file system"}
    # Its own processes only: bubblewrap's first process, and itself.
    assert isinstance(seen["pids"], list)
    assert len(seen["pids"]) == 2 and max(seen["pids"]) < 10


def test_bubblewrap_has_a_loopback_and_no_other_network(bubblewrap: Level, folder: Path) -> None:
    seen = run_json(bubblewrap, make_job(folder, SPY))
    assert seen["interfaces"] == ["lo"]
    assert seen["loopback"] == "done"
    assert seen["outside"] == "Network is unreachable"


def test_isolated_levels_hold_no_privilege(isolated: Level, folder: Path) -> None:
    seen = run_json(isolated, make_job(folder, SPY))
    status = seen["status"]
    assert isinstance(status, dict)
    capabilities = {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert capabilities == {"0" * 16}
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]
    assert "0" not in status["Uid"] + status["Gid"]
    assert seen["user_namespace"] == seen["system_v_memory"] == "Operation not permitted"
    assert seen["keyring"] in ("Operation not permitted", None)


def test_a_judge_that_is_root_gives_the_sandbox_a_real_user(isolated: Level, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this test run is not root")
    job = make_job(folder, "import time; time.sleep(60)")
    marker = uuid.uuid4().hex
    with Sandbox(isolated).start(Job(**{**vars(job), "environment": {"MARKER": marker}})):
        until = time.monotonic() + 10
        owners: set[int] = set()
        # bubblewrap's own two processes carry the environment too, and are root's.
        while not any(owners) and time.monotonic() < until:
            with contextlib.suppress(OSError):
                owners = {Path(f"/proc/{pid}").stat().st_uid for pid in processes_with(marker)}
        assert 60600 <= max(owners) <= 60699


def test_sandboxes_that_run_together_have_different_users(isolated: Level, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this test run is not root")
    owners = []
    with contextlib.ExitStack() as stack:
        for name in ("first", "second"):
            (folder / name).mkdir()
            (folder / name).chmod(0o711)
            job = make_job(folder / name, "import time; time.sleep(60)")
            stack.enter_context(Sandbox(isolated).start(job))
            owners.append((folder / name / "outbox").stat().st_uid)
    assert len(set(owners)) == 2


def test_nothing_of_the_judges_environment_leaks(
    level: Level, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    secret = os.memfd_create("judge", 0)  # inheritable, as a careless library leaves one
    try:
        seen = run_json(level, make_job(folder, SPY))
    finally:
        os.close(secret)
    environment = seen["environment"]
    assert isinstance(environment, dict)
    assert "secret" not in json.dumps(environment)
    assert environment["GREETING"] == "hello"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["HOME"] == environment["TMPDIR"]
    # The three standard ones, two sockets, and the listing itself.
    assert isinstance(seen["descriptors"], int) and seen["descriptors"] <= 6
    assert seen["core"] == [0, 0]


def test_a_sandbox_can_write_its_outbox_and_temporary_folder(level: Level, folder: Path) -> None:
    job = make_job(
        folder,
        "import sys, tempfile; open(sys.argv[1], 'w').write('x'); tempfile.TemporaryFile()",
        str(folder / "outbox" / "state"),
    )
    ending, log = run(level, job)
    assert ending.exit_status == 0, log
    assert (folder / "outbox" / "state").read_text() == "x"


def test_torchrun_connects_its_ranks(level: Level, folder: Path) -> None:
    program = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.tensor([10.0 ** dist.get_rank()])
dist.all_reduce(value)
print(f"sum {value.item()}\\n", end="", flush=True)
dist.barrier()
os._exit(0)  # gloo may abort while the interpreter exits
"""
    job = make_job(folder, program)
    job = Job(**{**vars(job), "argv": torchrun_argv(2, "program")})
    ending, log = run(level, job, seconds=60)
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), log
    assert log.count("sum") == log.count("11.0") == 2, log
