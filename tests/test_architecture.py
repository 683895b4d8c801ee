"""What the import contract of pyproject.toml cannot say of the rooms (`make lint` holds them to that)."""

import ast
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.paths import HARNESS, IMAGE_BUILD, IMAGE_ENTRY, REFERENCE_LOOP, WORKER
from harness.standalone import standalone_argv
from tests.project import ROOT

# Rooms whose business is processes: a submission's, those that stand in for one, children that parse it.
PROCESSES = ("sandbox", "escapes", "parsing")
ENDING_OR_STARTING = {
    "kill", "killpg", "fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen",
    "execv", "execve", "execvp", "execvpe", "pidfd_open", "pidfd_send_signal",
}  # fmt: skip


def rooms() -> list[str]:
    """Folders and modules directly in harness/."""
    return sorted(
        path.stem
        for path in HARNESS.iterdir()
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    )


def calls_of_os(source: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }


def test_only_the_rooms_of_the_sandbox_start_or_end_processes_by_hand() -> None:
    found = {
        str(path.relative_to(HARNESS)): calls_of_os(path.read_text()) & ENDING_OR_STARTING
        for path in HARNESS.rglob("*.py")
        if path.relative_to(HARNESS).parts[0] not in PROCESSES
    }
    assert not {path: names for path, names in found.items() if names}
    inside = [calls_of_os(path.read_text()) for path in (HARNESS / "sandbox").rglob("*.py")]
    assert any(names & ENDING_OR_STARTING for names in inside)  # so that this test can fail


@pytest.mark.parametrize(
    "module",
    [
        "harness.sandbox.supervisor",
        "harness.parsing.fork_server",
        "harness.submission.source_facts",
        "harness.board.program",
    ],
)
def test_a_process_between_judge_and_submission_needs_the_standard_library_only(
    module: str, tmp_path: Path
) -> None:
    program = (
        f"import json, sys, {module}; print(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    )
    command = standalone_argv(module, "nothing")
    command[command.index("-c") + 1] = "import sys; sys.path += sys.argv[3:]; " + program
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env={})
    loaded = set(json.loads(done.stdout))
    assert "harness" in loaded
    assert not {
        name
        for name in loaded - set(sys.stdlib_module_names) - {"harness", "__main__", "__mp_main__"}
        if find_spec(name) is not None
    }


def test_what_is_started_by_name_is_there() -> None:
    for module in (IMAGE_ENTRY, IMAGE_BUILD, REFERENCE_LOOP, WORKER):
        assert find_spec(module) is not None
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    started = re.findall(r"-m\"?,? \"?(harness[\w.]*)", dockerfile + makefile)
    assert sorted(set(started)) == sorted({IMAGE_ENTRY, IMAGE_BUILD})


def test_the_architecture_page_and_the_contract_name_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = contract.partition("layers = [")[2].partition("]")[0]
    for room in rooms():
        if room != "__init__":
            assert re.search(rf"`{room}[/`]", page), f"docs/architecture.md does not name {room}"
            assert re.search(rf"\b{room}\b", layers), f"no layer for {room}"
