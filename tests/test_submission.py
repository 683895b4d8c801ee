"""Train files read without being run: the strategy, the signature, and files that mean harm."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import source_facts
from harness.errors import Code, InputError, SubmissionError
from harness.strategy import WHOLE_WORLD
from harness.submission import MAX_BYTES, Level, Strategy, Submission, check, read

INNER_STEPS = (
    "def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):\n    pass\n"
)
STRATEGY = "def get_strategy():\n    return {'dp_size': 2}\n"


Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(source: str | bytes) -> Path:
        path = tmp_path / "train.py"
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        return path

    return _write


def refusal(path: Path, world: int | None = None) -> SubmissionError:
    with pytest.raises(SubmissionError) as caught:
        read(path, world)
    return caught.value


def declared(write: Write, returned: str) -> Path:
    return write(f"{INNER_STEPS}def get_strategy():\n    return {returned}\n")


# --- what is read off a good file -------------------------------------------------------------


def test_a_submission_is_its_bytes_their_hash_and_its_strategy(write: Write) -> None:
    source = (INNER_STEPS + STRATEGY).encode()
    path = write(source)
    assert read(path) == Submission(
        "train.py", path, source, hashlib.sha256(source).hexdigest(), Strategy(dp_size=2)
    )


@pytest.mark.parametrize(
    ("returned", "strategy"),
    [
        ("{}", Strategy()),
        ("{'dp_size': 2, 'tp_size': 3, 'pp_size': 5, 'cp_size': 7}", Strategy(2, 3, 1, 5, 7)),
        ("{'ep_size': 4}", Strategy(ep_size=4)),
        (
            "{'dp_size': 4, 'ep_size': 2, 'ep_borrows_dp': True}",
            Strategy(dp_size=4, ep_size=2, ep_borrows_dp=True),
        ),
        ("'single'", Strategy()),
        ("'ddp'", Strategy(dp_size=WHOLE_WORLD)),
        ("'fsdp'", Strategy(dp_size=WHOLE_WORLD)),
        ("'tp'", Strategy(tp_size=WHOLE_WORLD)),
        ("'ep'", Strategy(ep_size=WHOLE_WORLD)),
    ],
)
def test_a_literal_strategy_is_read(write: Write, returned: str, strategy: Strategy) -> None:
    assert read(declared(write, returned)).strategy == strategy


def test_a_docstring_an_annotation_and_a_decorator_do_not_make_a_strategy_computed(
    write: Write,
) -> None:
    path = write(
        f"import functools\n{INNER_STEPS}"
        "@functools.cache\ndef get_strategy() -> dict:\n    'All in dp.'\n    return {'dp_size': 3}\n"
    )
    assert read(path).strategy.dp_size == 3


def test_a_legacy_string_takes_the_whole_world(write: Write) -> None:
    path = declared(write, "'fsdp'")
    assert read(path, world=4).strategy == Strategy(dp_size=4)
    assert read(path).strategy.check_world(8).dp_rank(5) == 5
    assert read(declared(write, "'tp'"), world=4).strategy == Strategy(tp_size=4)


def test_no_strategy_is_one_rank_and_an_error_on_more(write: Write) -> None:
    path = write(INNER_STEPS)
    assert read(path, world=1).strategy.world_size == 1
    error = refusal(path, world=2)
    assert error.code is Code.STRATEGY_WORLD_MISMATCH
    assert "no get_strategy()" in error.message and "on 2" in error.message


# --- the strategy's arithmetic ----------------------------------------------------------------


def test_ranks_are_laid_out_with_dp_outermost() -> None:
    strategy = Strategy(dp_size=2, tp_size=2, pp_size=2)
    assert strategy.world_size == 8
    assert [strategy.dp_rank(rank) for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_borrowed_experts_do_not_enter_the_product() -> None:
    borrowed = Strategy(dp_size=4, ep_size=2, ep_borrows_dp=True)
    assert borrowed.check_world(4) is not None
    assert [borrowed.dp_rank(rank) for rank in range(4)] == [0, 1, 2, 3]
    assert Strategy(dp_size=4, ep_size=2).world_size == 8


def test_a_wrong_product_names_the_numbers(write: Write) -> None:
    path = declared(write, "{'dp_size': 2, 'tp_size': 3}")
    assert read(path, world=6).strategy.world_size == 6
    error = refusal(path, world=4)
    assert error.code is Code.STRATEGY_WORLD_MISMATCH
    assert "dp_size 2 x tp_size 3 = 6" in error.message and "on 4" in error.message


def test_dp_has_to_divide_the_batch() -> None:
    Strategy(dp_size=4).check_batch(8)
    with pytest.raises(SubmissionError, match=r"8 rows .* dp_size = 3") as caught:
        Strategy(dp_size=3).check_batch(8)
    assert caught.value.code is Code.STRATEGY_INVALID


# --- strategies that are refused --------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("{'dp_size': 0}", "dp_size = 0"),
        ("{'dp_size': -1}", "dp_size = -1"),
        ("{'dp_size': True}", "dp_size = True"),
        ("{'dp_size': 2.0}", "a float"),
        ("{'dp_size': '2'}", "a str"),
        ("{'dp_size': None}", "a NoneType"),
        ("{'dp_size': 0x" + "f" * 5000 + "}", "a int"),
        ("{'dp_size': 65537}", "65537"),
        ("{'dp_sise': 2}", '"dp_sise"'),
        ("{'ep_borrows_dp': 1}", "ep_borrows_dp = 1"),
        ("{'dp_size': 3, 'ep_size': 2, 'ep_borrows_dp': True}", "must divide"),
        ("{1: 2}", "not strings"),
        ("['ddp']", "a list"),
        ("None", "a NoneType"),
        ("'zero3'", '"zero3"'),
        ("'" + "x" * 100_000 + "'", "xxx…"),
        (r"'\x1b[2J'", '"?[2J"'),
        (r"{'\ud800': 1}", '"?"'),
    ],
)
def test_an_invalid_strategy_is_named(write: Write, returned: str, told: str) -> None:
    error = refusal(declared(write, returned))
    assert error.code is Code.STRATEGY_INVALID
    assert told in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "definition",
    [
        "def get_strategy():\n    return {'dp_size': WORLD}",
        "def get_strategy():\n    return dict(dp_size=2)",
        "def get_strategy():\n    return {'dp_size': 1 + 1}",
        "def get_strategy():\n    return {**{'dp_size': 2}}",
        "def get_strategy():\n    return {[]: 2}",
        "def get_strategy():\n    return f'ddp'",
        "def get_strategy():\n    return",
        "def get_strategy():\n    pass",
        "def get_strategy():\n    'ddp'",
        "def get_strategy():\n    import os\n    return {'dp_size': 2}",
        "def get_strategy():\n    yield {'dp_size': 2}",
        "async def get_strategy():\n    return {'dp_size': 2}",
        "get_strategy = lambda: {'dp_size': 2}",
        "from elsewhere import get_strategy",
        "class get_strategy:\n    pass",
        "if True:\n    def get_strategy():\n        return 'ddp'",
        "def get_strategy():\n    return 'ddp'\ndef get_strategy():\n    return 'tp'",
        "def get_strategy():\n    return 'ddp'\nget_strategy = other",
    ],
)
def test_a_strategy_that_only_a_run_could_tell_is_refused(write: Write, definition: str) -> None:
    error = refusal(write(f"{INNER_STEPS}{definition}\n"))
    assert error.code is Code.STRATEGY_NOT_LITERAL
    assert "never executed" in error.message


# --- inner_steps and setup --------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        "model, data_iterator, optimizer, num_steps, device, num_gpus=1",
        "model, data_iterator, optimizer, num_steps, device, num_gpus",
        "m, d, o, n, dev, /, *, num_gpus, more=3",
        "*args, **kwargs",
        "m, d, *rest, num_gpus",
        "model, data_iterator, optimizer, num_steps, device, **options",
    ],
)
def test_parameters_that_take_the_call_are_accepted(write: Write, parameters: str) -> None:
    read(write(f"def inner_steps({parameters}): pass\n"))


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("model, data_iterator, optimizer, num_steps, device", "num_gpus"),
        ("model, data_iterator, num_steps, device, num_gpus=1", "num_gpus"),
        ("m, d, o, n, dev, num_gpus, extra", "extra"),
        ("m, d, o, n, dev, num_gpus=1, *, extra", "extra"),
        ("m, d, o, n, dev, num_gpus, /", "num_gpus"),
        ("", "too many positional"),
    ],
)
def test_parameters_that_do_not_are_a_bad_signature(
    write: Write, parameters: str, told: str
) -> None:
    error = refusal(write(f"\ndef inner_steps({parameters}): pass\n"))
    assert error.code is Code.BAD_SIGNATURE
    assert told in error.message and "line 2" in error.message


def test_async_inner_steps_are_a_bad_signature(write: Write) -> None:
    assert refusal(write("async " + INNER_STEPS)).code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    "source",
    ["", "# inner_steps\n", "class A:\n    def inner_steps(self): pass\n", "inner_steps: object\n"],
)
def test_a_file_without_inner_steps_is_refused(write: Write, source: str) -> None:
    assert refusal(write(source)).code is Code.NO_INNER_STEPS


@pytest.mark.parametrize(
    "source",
    [
        "from elsewhere import inner_steps\n",
        "from elsewhere import train as inner_steps\n",
        "from elsewhere import *\n",
        "inner_steps = make()\n",
        "other = inner_steps = make()\n",
        "first, inner_steps = make()\n",
        "inner_steps: object = make()\n",
        "import torch\n@torch.compile\ndef inner_steps(*a): pass\n",
        "class inner_steps:\n    def __new__(cls, *a, **k): pass\n",
        "try:\n    import fast\nexcept ImportError:\n    from slow import inner_steps\n",
        "match 1:\n    case 1:\n        inner_steps = make()\n",
        "if x:\n    pass\nelse:\n    with y:\n        for z in w:\n            inner_steps = z\n",
    ],
)
def test_what_only_a_run_can_tell_is_a_note_and_no_refusal(write: Write, source: str) -> None:
    path = write(source)
    read(path, world=1)
    notes = [remark for remark in check(path, 1, 4) if remark.level is Level.NOTE]
    assert any("only a run can tell" in note.message for note in notes)


def test_of_two_definitions_one_that_fits_is_enough(write: Write) -> None:
    branches = "if x:\n    def inner_steps(): pass\nelse:\n    def inner_steps(*a, **k): pass\n"
    read(write(branches))


def test_setup_is_optional_but_has_to_take_its_call(write: Write) -> None:
    read(write(INNER_STEPS + "def setup(model, device, num_gpus):\n    return model\n"))
    error = refusal(write(INNER_STEPS + "def setup(model):\n    return model\n"))
    assert error.code is Code.BAD_SIGNATURE and "setup" in error.message


# --- files that are no files, or mean harm ----------------------------------------------------


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


MIB = 2**20
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
        "from harness.submission import read\n"
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
    program = Path(source_facts.__file__).read_text()
    lines = [
        f"{name} = {value}" if line.startswith(f"{name} =") else line
        for line in program.splitlines()
    ]
    limited = tmp_path / "limited.py"
    limited.write_text("\n".join(lines))
    monkeypatch.setattr(source_facts, "__file__", str(limited))
    error = refusal(write(b"a;b;c\n" * (MIB // 6)))
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


# --- validator check --------------------------------------------------------------------------


def test_check_lists_every_problem(write: Write) -> None:
    path = write("def inner_steps(model): pass\ndef setup(): pass\ndef get_strategy(): return 3\n")
    problems = [remark.code for remark in check(path, 2, 8) if remark.level is Level.PROBLEM]
    assert problems == [Code.BAD_SIGNATURE, Code.BAD_SIGNATURE, Code.STRATEGY_INVALID]


def test_check_knows_the_world_and_the_batch(write: Write) -> None:
    path = declared(write, "{'dp_size': 3}")
    assert [r.code for r in check(path, 2, 9) if r.level is Level.PROBLEM] == [
        Code.STRATEGY_WORLD_MISMATCH
    ]
    assert [r.code for r in check(path, 3, 8) if r.level is Level.PROBLEM] == [
        Code.STRATEGY_INVALID
    ]
    fine = check(path, 3, 9)
    assert all(remark.level is Level.OK and remark.code is Code.OK for remark in fine)
    assert any("3 of 9 rows" in remark.message for remark in fine)


def test_check_reports_what_read_would_refuse(write: Write, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(write(INNER_STEPS))
    assert [remark.code for remark in check(link, 1, 1)] == [Code.FILE_UNREADABLE]
    assert check(write("def\n"), 1, 1)[-1].code is Code.SYNTAX_ERROR
    with pytest.raises(InputError):
        check(tmp_path / "missing.py", 1, 1)
