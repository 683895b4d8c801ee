"""Train files that are no files or mean harm: neither followed, waited for, run nor paid for."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.errors import Code, InputError
from harness.parsing.ask import end_server
from harness.paths import HARNESS
from harness.submission.read import MAX_BYTES, read
from tests.train_sources import INNER_STEPS, Write, refusal, writer

MIB = 2**20


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def test_a_missing_file_and_a_folder_are_the_callers_fault(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.py", tmp_path, tmp_path / "nul\0.py", tmp_path / ("x" * 999)):
        with pytest.raises(InputError) as caught:
            read(path)
        assert caught.value.code is Code.FILE_UNREADABLE


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text(INNER_STEPS)
    link = tmp_path / "train.py"
    for target in (tmp_path / "secret.py", Path("/dev/zero"), tmp_path / "nothing"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        error = refusal(link)
        assert error.code is Code.FILE_UNREADABLE and "symbolic link" in error.message


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    os.mkfifo(path)
    errors: list[Code] = []
    reader = threading.Thread(target=lambda: errors.append(refusal(path).code), daemon=True)
    reader.start()
    reader.join(5)
    assert errors == [Code.FILE_UNREADABLE]


def test_a_device_is_refused() -> None:
    assert refusal(Path("/dev/zero")).code is Code.FILE_UNREADABLE


def test_one_byte_above_the_limit_is_too_large_and_a_sparse_giant_is_not_read(write: Write) -> None:
    source = INNER_STEPS.encode()
    read(write(source + b"#" * (MAX_BYTES - len(source))))
    path = write(source + b"#" * (MAX_BYTES - len(source) + 1))
    assert refusal(path).code is Code.FILE_TOO_LARGE
    with path.open("r+b") as file:
        file.truncate(2**40)
    assert refusal(path).code is Code.FILE_TOO_LARGE


HOSTILE: dict[str, bytes] = {
    "parentheses": b"(" * MIB,
    "minus": b"-" * MIB,
    "minus one": b"-" * (MIB - 1) + b"1",
    "not": b"not " * (MIB // 4),
    "brackets": b"a" + b"[a" * (MIB // 2 - 1),
    "dicts": b"{1:" * (MIB // 3),
    "lambdas": b"lambda:" * (MIB // 7),
    "attributes": b"a" + b".a" * (MIB // 2 - 1),
    "calls": b"a" + b"()" * (MIB // 2 - 1),
    "sums": b"1" + b"+1" * (MIB // 2 - 1),
    "elif": b"if 1:pass\n" + b"elif 1:pass\n" * (MIB // 12 - 1),
    "indentation": b"".join(b" " * depth + b"if 1:\n" for depth in range(1000)),
    "f-strings": b"f'{" * (MIB // 3),
    "digits": b"x=" + b"9" * (MIB - 2),
    "null byte": b"a = 1\0",
    "no encoding": b"# coding: nothing\n",
    "not a text encoding": b"# coding: rot13\n",
    "not utf-8": b"\xff\xfe",
    "unfinished": b"def inner_steps(\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_source_that_breaks_the_parser_is_a_syntax_error_and_no_more(
    write: Write, name: str
) -> None:
    start = time.monotonic()
    error = refusal(write(HOSTILE[name]))
    assert error.code is Code.SYNTAX_ERROR
    assert len(error.message) < 500 and error.message.isprintable()
    assert time.monotonic() - start < 60


def test_a_quarter_million_statements_do_not_cost_the_judge_memory(write: Write) -> None:
    """The tree takes half a gigabyte; it must be the child's, which is limited."""
    path = write(b"a\n" * (MIB // 4))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from harness.errors import SubmissionError\n"
        "from harness.submission.read import read\n"
        "try:\n    read(Path(sys.argv[1]))\n"
        "except SubmissionError as error:\n    print(error.code)\n"
        # Not ru_maxrss: that begins with the peak of whoever forked this process.
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.partition('VmHWM:')[2].split()[0]) // 1024)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    code, mebibytes, torch_imported = done.stdout.split()
    assert code == Code.NO_INNER_STEPS
    assert int(mebibytes) < 200
    assert torch_imported == "False"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [("ADDRESS_SPACE_BYTES", 150 * MIB, "large"), ("CPU_SECONDS", 1, "SIGXCPU")],
)
def test_the_childs_limits_bite(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int, code: str
) -> None:
    """The same program with a smaller limit, and a source that needs more."""
    project = tmp_path / "project"
    for part in ("__init__.py", "parsing", "protocol", "submission"):
        source, copy = HARNESS / part, project / "harness" / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copyfile(source, copy)
    program = project / "harness" / "parsing" / "child.py"
    limited = re.sub(rf"^{name} = .*$", f"{name} = {value}", program.read_text(), flags=re.M)
    assert limited != program.read_text()
    program.write_text(limited)
    monkeypatch.setattr("harness.standalone.PROJECT", project)
    end_server()
    try:
        error = refusal(write(b"a;b;c\n" * (MIB // 6)))
    finally:
        end_server()
    assert error.code is Code.SYNTAX_ERROR and code in error.message


def test_nothing_of_the_source_runs(write: Write, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    touch = f"open({str(marker)!r}, 'w')"
    read(
        write(f"{touch}\n{INNER_STEPS}def get_strategy(x={touch}):\n    return {{'dp_size': 2}}\n")
    )
    assert not marker.exists()


def test_a_module_beside_the_file_or_the_caller_is_not_imported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ast.py").write_text("raise SystemExit('hijacked')\n")
    (tmp_path / "nosuch.py").write_text("raise SystemExit('hijacked')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    read(write(INNER_STEPS))
    assert refusal(write("# coding: nosuch\n")).code is Code.SYNTAX_ERROR
