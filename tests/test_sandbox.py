"""What a sandbox must hold against: programs that hide, spy, fork, flood and fill, at every level.

Level `user` needs a Python that every user can reach, and bubblewrap behaves differently for root and
for an ordinary user. Where this test run has neither, two tests at the end run this file again in
a mount namespace of its own, in which both are so.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import Code, InputError, JudgeError
from harness.hparams import Limits
from harness.sandbox import (
    Ending,
    EndReason,
    Job,
    Level,
    Sandbox,
    choose,
    code_folder,
    probe,
    torchrun_argv,
)
from harness.sandbox.user import unreachable
from harness.sandbox.watch import Log, TooManyEntriesError, folder_bytes

REPOSITORY = Path(__file__).resolve().parents[1]
MIB = 2**20
NESTED = "TRAINJUDGE_TEST_NESTED"
AVAILABLE = {availability.level: availability for availability in probe()}


def require(level: Level) -> Level:
    if not AVAILABLE[level].available:
        pytest.skip(f"level {level}: {AVAILABLE[level].reason}")
    return level


@pytest.fixture(params=list(Level), ids=str)
def level(request: pytest.FixtureRequest) -> Level:
    """Every level that works here."""
    return require(request.param)


@pytest.fixture(params=[Level.BUBBLEWRAP, Level.USER], ids=str)
def isolated(request: pytest.FixtureRequest) -> Level:
    """Every level that works here and protects the judge."""
    return require(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A work folder that other users may pass through (pytest's own may not)."""
    path = Path(tempfile.mkdtemp(prefix="trainjudge-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def make_job(folder: Path, program: str, *arguments: str, **limits: int) -> Job:
    code, outbox = folder / "code", folder / "outbox"
    code.mkdir(exist_ok=True)
    outbox.mkdir(exist_ok=True)
    (code / "program.py").write_text(program)
    return Job(
        argv=(sys.executable, "-m", "program", *arguments),
        code=code,
        read_only=(),
        writable=(outbox,),
        environment={"GREETING": "hello"},
        limits=Limits(**limits),
        outbox=outbox,
    )


def run(level: Level, job: Job, seconds: float = 30.0) -> tuple[Ending, str]:
    with Sandbox(level).start(job) as running:
        assert select.select([running], [], [], seconds)[0], "the sandbox did not end by itself"
        ending = running.ended()
        assert ending is not None
        return ending, running.log()


def run_json(level: Level, job: Job) -> dict[str, object]:
    ending, log = run(level, job)
    assert ending == Ending(EndReason.EXITED, 0, "ended with exit status 0"), log
    result: dict[str, object] = json.loads(log)
    return result


def processes_with(marker: str) -> list[int]:
    """All living processes on the machine whose command line or environment holds `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if marker.encode() in text:
                    found.append(int(entry.name))
    return found


def wait_until_none(marker: str, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while (left := processes_with(marker)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


def wait_for(path: Path, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


# What a program can see and do ------------------------------------------------------------------

SPY = """
import ctypes, json, os, resource, socket, sys
def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.strerror
    return "done"
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
    "writes": {p: attempt(open, p + "/probe", "w") for p in ("/", "/usr", "/dev", "/etc")},
    "interfaces": [name for _, name in socket.if_nameindex()],
    "loopback": attempt(socket.create_connection, server.getsockname()),
    "outside": attempt(outside.connect, ("192.0.2.1", 80)),
    "pids": [int(p) for p in os.listdir("/proc") if p.isdecimal()],
    "descriptors": len(os.listdir("/proc/self/fd")),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "user_namespace": call("unshare", 0x10000000),
    "system_v_memory": call("shmget", 0, 4096, 0o1600),
    "keyring": call("syscall", 250, 0, -3, 0) if os.uname().machine == "x86_64" else None,
    "nice_core": attempt(os.kill, 1, 9),
}))
"""


def test_bubblewrap_shows_only_what_the_job_names(folder: Path) -> None:
    level = require(Level.BUBBLEWRAP)
    secret = folder / "judge" / "reference.safetensors"
    secret.parent.mkdir()
    secret.touch()
    shown = folder / "inbox"
    shown.mkdir()
    hidden = [secret, REPOSITORY / "pyproject.toml", Path.home() / ".bashrc", Path("/etc/shadow")]
    hidden += [Path("/home"), Path("/var"), Path("/etc/machine-id"), Path(f"/proc/1/root{secret}")]
    job = make_job(folder, SPY, str(shown), *map(str, hidden))
    seen = run_json(level, Job(**{**vars(job), "read_only": (shown,)}))
    assert isinstance(seen["files"], dict)
    assert seen["files"].pop(str(shown)) == "done"
    assert set(seen["files"].values()) <= {"No such file or directory", "Permission denied"}
    assert seen["files"][str(secret)] == "No such file or directory"
    assert isinstance(seen["writes"], dict)
    assert set(seen["writes"].values()) == {"Read-only file system"}
    # Its own processes only: bubblewrap's first process, and itself.
    assert isinstance(seen["pids"], list)
    assert len(seen["pids"]) == 2 and max(seen["pids"]) < 10


def test_bubblewrap_has_a_loopback_and_no_other_network(folder: Path) -> None:
    seen = run_json(require(Level.BUBBLEWRAP), make_job(folder, SPY))
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


# Ending it --------------------------------------------------------------------------------------

HYDRA = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
def linger(name):
    os.close(1); os.close(2)
    open(os.path.join(sys.argv[1], name), "w").close()
    time.sleep(600)
if os.fork() == 0:
    linger("child")
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            linger("daemon")
        os._exit(0)
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # a subreaper of its own
    if os.fork() == 0:
        if os.fork() == 0:
            linger("hoarded")
        os._exit(0)
    linger("hoarder")
open(os.path.join(sys.argv[1], "main"), "w").close()
if sys.argv[2] == "stay":
    time.sleep(600)
while not all(os.path.exists(os.path.join(sys.argv[1], name))
              for name in ("child", "daemon", "hoarded", "hoarder")):
    time.sleep(0.02)
"""
HEADS = ("child", "daemon", "hoarded", "hoarder", "main")


def hydra(folder: Path, mode: str, marker: str) -> Job:
    job = make_job(folder, HYDRA, str(folder / "outbox"), mode)
    return Job(**{**vars(job), "environment": {"MARKER": marker}})


def test_stopping_ends_forked_doubly_forked_and_deaf_processes(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with Sandbox(level).start(hydra(folder, "stay", marker)) as running:
        for name in HEADS:
            wait_for(folder / "outbox" / name)
        assert len(processes_with(marker)) >= len(HEADS)
        assert running.stop().reason is EndReason.STOPPED
        # No waiting here: stop() has to mean that they are gone.
        assert processes_with(marker) == []


def test_nothing_survives_the_commands_own_exit(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with Sandbox(level).start(hydra(folder, "leave", marker)) as running:
        assert select.select([running], [], [], 30)[0]
        assert running.ended() == Ending(EndReason.EXITED, 0, "ended with exit status 0")
        assert processes_with(marker) == []


def test_nothing_survives_an_exception_in_the_judge(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    with (
        pytest.raises(KeyboardInterrupt),
        Sandbox(level).start(hydra(folder, "stay", marker)),
    ):
        wait_for(folder / "outbox" / "hoarded")
        raise KeyboardInterrupt
    assert processes_with(marker) == []


def test_nothing_survives_a_judge_that_is_killed(level: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    hydra(folder, "stay", marker)  # writes the program
    judge = subprocess.Popen(
        [sys.executable, "-c", JUDGE, str(level), str(folder), marker], cwd=REPOSITORY
    )
    try:
        for name in HEADS:
            wait_for(folder / "outbox" / name)
    finally:
        judge.send_signal(signal.SIGKILL)
        judge.wait()
    wait_until_none(marker)


JUDGE = """
import sys, time
from pathlib import Path
sys.path[:0] = [".", "tests"]
from test_sandbox import hydra
from harness.sandbox import Level, Sandbox
with Sandbox(Level(sys.argv[1])).start(hydra(Path(sys.argv[2]), "stay", sys.argv[3])):
    time.sleep(600)
"""


def test_an_ending_is_told_once_and_stays(level: Level, folder: Path) -> None:
    with Sandbox(level).start(make_job(folder, "import sys; sys.exit(7)")) as running:
        assert select.select([running], [], [], 30)[0]
        first = running.ended()
        assert first == Ending(EndReason.EXITED, 7, "ended with exit status 7")
        assert running.stop() == running.stop() == running.ended() == first


def test_a_running_sandbox_has_no_ending(level: Level, folder: Path) -> None:
    with Sandbox(level).start(make_job(folder, "import time; time.sleep(600)")) as running:
        assert select.select([running], [], [], 0.3)[0] == []
        assert running.ended() is None


def test_a_command_that_dies_by_a_signal_says_so(level: Level, folder: Path) -> None:
    ending, _ = run(level, make_job(folder, "import os; os.kill(os.getpid(), 11)"))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 128 + 11)


def test_temporary_files_do_not_outlive_a_sandbox(isolated: Level, folder: Path) -> None:
    name = f"left-{uuid.uuid4().hex}"
    program = f"""
import os
for place in ("/tmp", "/dev/shm", os.environ["TMPDIR"]):
    os.makedirs(f"{{place}}/{name}/sub")
    open(f"{{place}}/{name}-file", "w").close()
    break_out = f"{{place}}/{name}/link"
    os.symlink("/usr", break_out)
    if place == os.environ["TMPDIR"] == "/tmp":
        break
"""
    ending, log = run(isolated, make_job(folder, program))
    assert ending.exit_status in (0, 1), log
    left = [path for place in ("/tmp", "/dev/shm") for path in Path(place).glob(f"*{name}*")]
    assert left == []
    assert Path("/usr/bin").is_dir()


def test_the_next_sandbox_cannot_reach_what_the_last_one_wrote(
    isolated: Level, folder: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("this test run is not root")
    run(isolated, make_job(folder, ""))
    status = (folder / "outbox").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o700)


# Limits -----------------------------------------------------------------------------------------

BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def test_a_fork_bomb_is_ended(isolated: Level, folder: Path) -> None:
    marker = uuid.uuid4().hex
    job = make_job(folder, BOMB, processes=32)
    ending, _ = run(isolated, Job(**{**vars(job), "environment": {"MARKER": marker}}))
    assert ending.reason is EndReason.PROCESSES
    assert "32 are allowed" in ending.detail
    assert processes_with(marker) == []


def test_too_many_processes_or_threads_end_the_sandbox(level: Level, folder: Path) -> None:
    # Bounded: at level `none` no kernel limit stands behind the supervisor's.
    program = """
import threading, time
for _ in range(40):
    threading.Thread(target=time.sleep, args=(60,)).start()
"""
    ending, _ = run(level, make_job(folder, program, processes=32))
    assert ending.reason is EndReason.PROCESSES


def test_as_many_processes_as_allowed_are_no_offence(level: Level, folder: Path) -> None:
    program = """
import threading, time
threads = [threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(31)]
for t in threads: t.start()
"""
    ending, log = run(level, make_job(folder, program, processes=32))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), log


@pytest.mark.parametrize(
    "program",
    [
        "import time; held = bytearray(b'x') * (200 << 20); time.sleep(60)",
        "import mmap, time; m = mmap.mmap(-1, 200 << 20); m.write(bytes(200 << 20)); time.sleep(60)",
        "import os, time; f = os.memfd_create('x')\n"
        "for _ in range(200): os.write(f, bytes(1 << 20))\ntime.sleep(60)",
    ],
    ids=["private", "shared", "unmapped-memory-file"],
)
def test_memory_over_the_limit_ends_the_sandbox(level: Level, folder: Path, program: str) -> None:
    ending, log = run(level, make_job(folder, program, memory_bytes=128 * MIB))
    assert ending.reason is EndReason.MEMORY, log
    assert "128.0 MiB are allowed" in ending.detail


def test_memory_that_processes_share_counts_once(level: Level, folder: Path) -> None:
    program = """
import os, time
held = bytearray(b"x") * (60 << 20)
for _ in range(3):
    os.fork()
time.sleep(0.6)
"""
    # 8 processes with the same 60 MiB: 480 MiB resident in sum.
    ending, log = run(level, make_job(folder, program, memory_bytes=200 * MIB))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), (ending, log)


def test_temporary_files_are_limited(level: Level, folder: Path) -> None:
    program = """
import os, time
with open(os.environ["TMPDIR"] + "/big", "wb") as file:
    for _ in range(40):
        file.write(bytes(1 << 20))
time.sleep(60)
"""
    ending, log = run(level, make_job(folder, program, tmp_bytes=16 * MIB))
    if level is Level.BUBBLEWRAP:
        assert "No space left on device" in log  # a tmpfs of that size
    else:
        assert ending.reason is EndReason.OUTBOX
        assert "temporary folder" in ending.detail


@pytest.mark.parametrize(
    "program",
    [
        "for n in range(40): open(f'{box}/{n}', 'wb').write(bytes(1 << 20))\ntime.sleep(60)",
        "os.truncate(os.open(f'{box}/sparse', os.O_CREAT | os.O_WRONLY), 17 << 20)\ntime.sleep(60)",
        "for n in range(40): box += '/d'; os.mkdir(box)\ntime.sleep(60)",
        "for n in range(40): open(f'{box}/{n}', 'wb').write(bytes(1 << 20))",
    ],
    ids=["many-files", "sparse", "deep", "at-the-last-moment"],
)
def test_an_outbox_over_its_limit_ends_the_sandbox(
    level: Level, folder: Path, program: str
) -> None:
    job = make_job(
        folder,
        f"import os, sys, time; box = sys.argv[1]\n{program}",
        str(folder / "outbox"),
        outbox_bytes=16 * MIB,
        tmp_bytes=16 * MIB,
    )
    ending, log = run(level, job)
    assert ending.reason is EndReason.OUTBOX, log
    assert "the outbox" in ending.detail


def test_a_sparse_giant_cannot_even_be_made(level: Level, folder: Path) -> None:
    program = "import os, sys; os.truncate(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), 1 << 44)"
    ending, log = run(level, make_job(folder, program, str(folder / "outbox" / "giant")))
    assert ending.exit_status not in (0, None), log
    assert (folder / "outbox" / "giant").stat().st_size == 0


def test_links_in_the_outbox_are_not_followed(level: Level, folder: Path) -> None:
    program = (
        "import os, sys; os.symlink('/usr', sys.argv[1] + '/usr'); os.mkfifo(sys.argv[1] + '/f')"
    )
    job = make_job(folder, program, str(folder / "outbox"), outbox_bytes=MIB)
    ending, log = run(level, job)
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), log


def test_a_flood_of_output_neither_blocks_nor_fills(level: Level, folder: Path) -> None:
    program = """
import sys
sys.stdout.write("first words\\n"); sys.stdout.flush()
for _ in range(64):
    sys.stdout.write("x" * (1 << 20)); sys.stdout.flush()
sys.stderr.write("\\nlast words\\n")
"""
    ending, log = run(level, make_job(folder, program, log_bytes=64 * 1024))
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0)
    assert log.startswith("first words\n")
    assert log.endswith("\nlast words\n")
    assert f"[... {64 * MIB + 24 - 64 * 1024} bytes cut ...]" in log
    assert len(log) < 65 * 1024


def test_a_log_cannot_steer_the_terminal(level: Level, folder: Path) -> None:
    program = r"import os; os.write(1, b'\x1b[2Jcleared \x07 \xff \xe2\x80\xae evil\r\nend')"
    _, log = run(level, make_job(folder, program))
    assert log == "\ufffd[2Jcleared \ufffd \ufffd \ufffd evil\nend"


# Choosing and misusing --------------------------------------------------------------------------


def test_auto_takes_the_best_level_that_works() -> None:
    best = next(availability.level for availability in probe() if availability.available)
    assert choose("auto").level is best


def test_bubblewrap_is_available_where_bwrap_can_make_namespaces() -> None:
    """Without this, a broken sandbox would only skip the tests above."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("bwrap is not installed")
    trial = ["--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    result = subprocess.run([bwrap, *trial], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"bwrap cannot make namespaces here: {result.stderr.strip()}")
    assert AVAILABLE[Level.BUBBLEWRAP].available, AVAILABLE[Level.BUBBLEWRAP].reason


def test_a_level_that_does_not_work_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without bwrap
    with pytest.raises(InputError, match="apt-get install bubblewrap") as caught:
        choose(Level.BUBBLEWRAP)
    assert caught.value.code is Code.SANDBOX_UNAVAILABLE
    assert choose("auto").level is not Level.BUBBLEWRAP


def test_a_name_that_is_no_level_is_refused() -> None:
    with pytest.raises(InputError, match="there are auto, bubblewrap, user, none"):
        choose("docker-in-docker")


def test_a_python_that_others_cannot_reach_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "venv").mkdir(parents=True)
    closed.chmod(0o700)
    reason = unreachable([closed / "venv"])
    assert reason is not None and "closed to other users (mode 0700)" in reason


def test_a_missing_path_is_an_error_of_the_judge(level: Level, folder: Path) -> None:
    job = make_job(folder, "")
    with pytest.raises(JudgeError, match="is not there"):
        Sandbox(level).start(Job(**{**vars(job), "read_only": (folder / "missing",)}))


def test_a_command_that_does_not_exist_ends_with_a_status(level: Level, folder: Path) -> None:
    job = make_job(folder, "")
    ending, log = run(level, Job(**{**vars(job), "argv": ("/no/such/program",)}))
    assert ending.reason is EndReason.EXITED and ending.exit_status != 0
    assert "FileNotFoundError" in log


# Its parts --------------------------------------------------------------------------------------


def test_a_submissions_code_folder_holds_nothing_of_the_judge(tmp_path: Path) -> None:
    code = code_folder(tmp_path / "code")
    modules = {str(path.relative_to(code).parent) for path in code.rglob("*.py")}
    assert modules == {"env", "harness", "harness/protocol"}
    assert [path.name for path in (code / "harness").glob("*.py")] == ["__init__.py"]
    assert list(code.rglob("*.pyc")) == []
    assert all(path.stat().st_mode & 0o004 for path in code.rglob("*"))


def test_the_reference_gets_the_whole_harness(tmp_path: Path) -> None:
    code = code_folder(tmp_path / "code", judge=True)
    assert (code / "harness" / "sandbox" / "supervisor.py").is_file()


@pytest.mark.parametrize("portion", [1, 3, 7, 64, 1000])
def test_a_log_keeps_its_ends_whatever_the_portions(portion: int) -> None:
    text = "".join(f"{number:04d}" for number in range(500))
    for length in (0, 5, 63, 64, 65, 127, 128, 129, 200, 2000):
        log = Log.create(128)
        try:
            for start in range(0, length, portion):
                log.append(text[start : min(start + portion, length)].encode())
            if length <= 128:
                assert log.read() == text[:length]
            else:
                cut = f"\n[... {length - 128} bytes cut ...]\n"
                assert log.read() == text[:64] + cut + text[length - 64 : length]
        finally:
            os.close(log.file)


def test_a_folder_of_too_many_files_is_not_measured_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.sandbox.watch.MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(TooManyEntriesError):
        folder_bytes(str(tmp_path))


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


# This file again, where every user can reach Python ----------------------------------------------

REACHABLE = """
set -e
hold=$(mktemp -d)
mount --bind "$BASE" "$hold"
for folder in $CLOSED; do mount -t tmpfs -o mode=755 none "$folder"; done
mkdir -p "$BASE"
mount --move "$hold" "$BASE"
rmdir "$hold"
exec "$@"
"""


def rerun(arguments: list[str], wrapper: list[str]) -> None:
    """pytest in a mount namespace in which the folders that close Python off are replaced."""
    if os.environ.get(NESTED):
        pytest.skip("this is the nested run")
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("making a mount namespace needs root, unshare and setpriv")
    base = Path(sys.base_prefix).resolve()
    closed = [f for f in reversed(base.parents) if unreachable([f / "x"])][:1]
    if (reason := unreachable([REPOSITORY / "tests", Path(sys.prefix)])) is not None:
        pytest.skip(f"another user cannot read the tests: {reason}")
    environment = {**os.environ, NESTED: "1", "BASE": str(base), "HOME": "/tmp"}
    environment |= {"CLOSED": " ".join(map(str, closed)), "PYTHONDONTWRITEBYTECODE": "1"}
    inner = ["bash", "-c", REACHABLE, "bash", *wrapper, sys.executable, "-m", "pytest"]
    result = subprocess.run(
        ["unshare", "--mount", *inner, "-p", "no:cacheprovider", __file__, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    output = result.stdout + result.stderr
    if "unshare failed" in output:
        pytest.skip(f"no mount namespace here: {output.strip()}")
    assert result.returncode == 0, output
    assert " passed" in output and " skipped" not in output.splitlines()[-1], output


def test_level_user_holds_too() -> None:
    if AVAILABLE[Level.USER].available:
        pytest.skip("level user works here and was tested above")
    rerun(["-k", "user] or user-"], [])


def test_bubblewrap_holds_for_a_judge_that_is_not_root() -> None:
    selection = (
        "(bubblewrap] or bubblewrap- or bubblewrap_) and not root and not users and not next"
    )
    rerun(["-k", selection], ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"])
