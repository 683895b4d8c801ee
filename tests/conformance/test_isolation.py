"""What a program in a sandbox can see, reach and do, and that honest work is still possible there."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import JudgeError
from harness.sandbox import EndReason, Level, Sandbox, torchrun_argv
from tests.conformance.launches import TMP_BYTES, Pair, Spied
from tests.conformance.promises import PROMISES, Promise, promised
from tests.project import ROOT
from tests.sandbox_programs import make_job, run

pytest_plugins = ("tests.sandbox_levels",)

MISSING, CLOSED, READ_ONLY = "ENOENT", "EACCES", "EROFS"


# Honest work.


def test_paths_of_the_job_are_the_same_inside_and_outside(spied: Spied) -> None:
    train_file = str(spied.given / "train.py")
    assert spied.facts["paths"][train_file] == "done"
    assert spied.facts["texts"][train_file] == "the train file"


def test_a_program_can_write_and_run_a_program_of_its_own(spied: Spied) -> None:
    assert spied.facts["temporary_program"] == "it runs\n"


def test_locks_between_processes_can_be_made(spied: Spied) -> None:
    assert spied.facts["lock"] == "done"


def test_a_sandbox_has_the_judges_cores_and_no_others(spied: Spied) -> None:
    assert spied.facts["cores"] == sorted(os.sched_getaffinity(0))


@pytest.mark.slow  # at levels that protect, a whole evaluation of two ranks says the same
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
    job = replace(make_job(folder, program), argv=torchrun_argv(2, "program"))
    ending, log = run(level, job, seconds=60)
    assert (ending.reason, ending.exit_status) == (EndReason.EXITED, 0), log
    assert log.count("sum") == log.count("11.0") == 2, log


def test_a_missing_path_is_an_error_of_the_judge(level: Level, folder: Path) -> None:
    job = replace(make_job(folder, ""), read_only=(folder / "missing",))
    with pytest.raises(JudgeError, match="is not there"):
        Sandbox(level).start(job)


# Nothing of the judge.

SET_FOR_ALL = {
    "PATH", "HOME", "TMPDIR", "USER", "LANG", "TZ", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME",
    "CUDA_VISIBLE_DEVICES", "GREETING",
}  # fmt: skip
# What the machinery of a level adds: the engine and the image, bubblewrap.
SET_BESIDE = {
    "docker": {
        "HOSTNAME", "NVIDIA_VISIBLE_DEVICES", "TRAINJUDGE_HOME", "TRAINJUDGE_HPARAMS",
        "TRAINJUDGE_CONTAINER",
    },
    "bubblewrap": {"PWD"},
}  # fmt: skip


def test_the_environment_is_made_from_nothing(level: Level, spied: Spied) -> None:
    environment = spied.facts["environment"]
    assert SET_FOR_ALL <= environment.keys() <= SET_FOR_ALL | SET_BESIDE.get(level, set())
    assert "the_judge" not in json.dumps(environment).replace("/", "_")
    assert environment["HOME"] == environment["TMPDIR"]
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_the_jobs_own_variables_win(spied: Spied) -> None:
    environment = spied.facts["environment"]
    assert environment["GREETING"] == "hello"
    assert environment["TOKENIZERS_PARALLELISM"] == "true"
    assert environment["PYTHONPATH"].split(":")[0] == str(spied.given.parent / "code")


def test_no_descriptor_is_inherited(spied: Spied) -> None:
    # The three standard ones, and that of the listing itself.
    assert set(spied.facts["descriptors"]) <= {0, 1, 2, 3}


def test_standard_input_is_empty(spied: Spied) -> None:
    assert spied.facts["standard_input"] == ""


def test_there_is_no_terminal_to_type_into(spied: Spied) -> None:
    assert spied.facts["terminal"] != "done"
    assert spied.facts["session"] not in (0, os.getsid(0))


def test_what_is_printed_cannot_steer_the_terminal(spied: Spied) -> None:
    assert "\ufffd[2Jcleared \ufffd \ufffd \ufffd evil\n" in spied.log


def test_both_streams_are_in_the_log(spied: Spied) -> None:
    assert "evil\non the other stream\n" in spied.log


# PRIVILEGES


@promised(Promise.PRIVILEGES)
def test_no_capability_is_held_or_can_be_gained(spied: Spied) -> None:
    status = spied.facts["status"]
    sets = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert {name: int(held, 16) for name, (held,) in sets.items()} == dict.fromkeys(sets, 0)
    assert status["NoNewPrivs"] == ["1"]


@promised(Promise.PRIVILEGES)
def test_the_program_is_not_root_and_in_no_group_of_the_judges(spied: Spied) -> None:
    status = spied.facts["status"]
    assert "0" not in status["Uid"] + status["Gid"] + status["Groups"]


@promised(Promise.PRIVILEGES)
def test_system_calls_that_training_never_needs_are_refused(spied: Spied) -> None:
    calls = dict(spied.facts["system_calls"])
    if not calls:
        pytest.skip("this processor has no filter: docs/sandbox.md says so")
    assert spied.facts["status"]["Seccomp"] == ["2"]
    assert calls.pop("clone3") == "ENOSYS"  # the C library then uses clone
    assert calls == dict.fromkeys(calls, "EPERM")


@promised(Promise.PRIVILEGES)
def test_system_calls_of_another_architecture_are_refused(spied: Spied) -> None:
    assert spied.facts["call_of_i386"] != "done"


# USER


@promised(Promise.USER)
def test_a_judge_that_is_root_gives_the_sandbox_a_real_user(pair: Pair) -> None:
    # bubblewrap's own two processes are root's.
    users = pair.users - {0}
    assert users and users <= set(range(60600, 60700))


@promised(Promise.USER)
def test_sandboxes_that_run_together_have_different_users(pair: Pair) -> None:
    assert len(set(pair.owners)) == 2
    assert set(pair.owners) == pair.users - {0}


@promised(Promise.USER)
def test_the_next_sandbox_cannot_reach_what_the_last_one_wrote(spied: Spied) -> None:
    assert (spied.owner, spied.mode) == (0, 0o700)


# FILES, BARE


@promised(Promise.FILES)
def test_what_the_job_does_not_name_does_not_exist(spied: Spied) -> None:
    paths = spied.facts["paths"]
    assert paths[str(spied.given)] == "done"
    assert paths[str(spied.secret)] == MISSING
    assert paths[str(ROOT / "pyproject.toml")] in (MISSING, CLOSED)
    assert paths[f"/proc/1/root{spied.secret}"] in (MISSING, CLOSED)
    assert paths["/run/docker.sock"] == MISSING


@promised(Promise.FILES)
def test_the_system_cannot_be_written(spied: Spied) -> None:
    writes = spied.facts["writes"]
    assert writes.pop("/dev") in (READ_ONLY, CLOSED)
    assert writes == {"/": READ_ONLY, "/usr": READ_ONLY, "/etc": READ_ONLY}


@promised(Promise.BARE)
def test_only_programs_and_libraries_are_there(spied: Spied) -> None:
    absent = ("/home", "/var", "/etc/machine-id", "/etc/shadow")
    assert {path: spied.facts["paths"][path] for path in absent} == dict.fromkeys(absent, MISSING)
    assert spied.facts["accounts"] == ["root", "sandbox"]


# NETWORK


@promised(Promise.NETWORK)
def test_there_is_a_loopback_and_no_other_network(spied: Spied) -> None:
    assert spied.facts["interfaces"] == ["lo"]
    assert spied.facts["loopback"] == "done"
    assert spied.facts["beyond"] == "ENETUNREACH"


@promised(Promise.NETWORK)
def test_the_machines_name_servers_are_not_shown(spied: Spied) -> None:
    assert spied.facts["resolver"] == ""


# NAMESPACES


def namespaces() -> dict[str, str]:
    """Of the judge."""
    return {path.name: str(path.readlink()) for path in Path("/proc/self/ns").iterdir()}


@promised(Promise.NAMESPACES)
def test_every_namespace_is_its_own(spied: Spied) -> None:
    own, outside = spied.facts["namespaces"], namespaces()
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    assert [name for name in names if own[name] == outside[name]] == []


@promised(Promise.NAMESPACES)
def test_only_its_own_processes_are_seen(spied: Spied) -> None:
    # Beside itself the first process, which reaps what others leave.
    processes = spied.facts["processes"]
    assert len(processes) == 2 and 1 in processes


@promised(Promise.NAMESPACES)
def test_the_machine_has_no_name(spied: Spied) -> None:
    assert spied.facts["host_name"] == "localhost"


# TEMPORARY, TIDY


@promised(Promise.TEMPORARY)
def test_temporary_folders_have_the_size_that_the_job_allows(spied: Spied) -> None:
    assert spied.facts["sizes"] == {"/tmp": TMP_BYTES, "/dev/shm": TMP_BYTES}


def test_temporary_files_do_not_outlive_a_sandbox(spied: Spied) -> None:
    """In the private folder at every level; elsewhere where TIDY is promised."""
    assert spied.left == []
    assert Path("/usr/bin").is_dir()  # a link to it was left too
    own = spied.facts["environment"]["TMPDIR"]
    assert own == tempfile.gettempdir() or not Path(own).exists()


# The suite itself.


@pytest.mark.parametrize("level", ["none"], indirect=True, scope="session")
def test_a_level_that_promises_nothing_is_seen_to_keep_nothing(level: Level, spied: Spied) -> None:
    """What could not fail would prove nothing."""
    facts = spied.facts
    assert facts["status"]["NoNewPrivs"] == ["0"]
    # The others may be refused to an ordinary user without any filter.
    free = (
        "shmget",
        "semget",
        "msgget",
        "unshare",
        "setns",
        "add_key",
        "keyctl",
        "clone",
        "clone3",
    )
    assert {facts["system_calls"].get(name) for name in free}.isdisjoint({"EPERM", "ENOSYS"})
    assert facts["call_of_i386"] != "refused"
    assert facts["paths"][str(spied.secret)] == facts["paths"]["/home"] == "done"
    assert facts["namespaces"] == namespaces()
    assert os.getpid() in facts["processes"]
    assert facts["sizes"]["/tmp"] > TMP_BYTES
    if os.geteuid() == 0:
        assert facts["writes"]["/etc"] == "done"
        assert facts["status"]["Uid"][0] == "0"


def test_the_documentation_makes_the_same_promises() -> None:
    """A cell of the table that gives the machine's own is no promise."""
    rows = {
        "file system": Promise.FILES,
        "user": Promise.USER,
        "capabilities": Promise.PRIVILEGES,
        "no new privileges": Promise.PRIVILEGES,
        "system call filter": Promise.PRIVILEGES,
        "network": Promise.NETWORK,
        "process ids, IPC, host name": Promise.NAMESPACES,
        "`/tmp`, `/dev/shm`": Promise.TEMPORARY,
    }
    text = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")
    table = [
        [cell.strip(" *`") for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    levels = next(row for row in table if "docker" in row and "none" in row)[1:]
    assert levels == list(PROMISES)
    for name, promise in rows.items():
        cells = next(row for row in table if row[0] == name.strip("`"))[1:]
        made = {
            level
            for level, cell in zip(levels, cells, strict=True)
            if not (cell == "no" or cell.startswith(("the machine's", "you")))
        }
        assert made == {level for level in levels if promise in PROMISES[level]}, name
