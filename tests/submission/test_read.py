"""Train files read without being run: their bytes, their signatures, and what `check` says of them."""

import hashlib
from pathlib import Path

import pytest

from harness.errors import Code, InputError
from harness.submission.read import RemarkKind, Strategy, Submission, check, read
from tests.train_sources import INNER_STEPS, STRATEGY, Write, declared, refusal, writer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def test_a_submission_is_its_bytes_their_hash_and_its_strategy(write: Write) -> None:
    source = (INNER_STEPS + STRATEGY).encode()
    path = write(source)
    assert read(path) == Submission(
        "train.py", path, source, hashlib.sha256(source).hexdigest(), Strategy(dp_size=2)
    )


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
    notes = [remark for remark in check(path, 1, 4) if remark.kind is RemarkKind.NOTE]
    assert any("only a run can tell" in note.message for note in notes)


def test_of_two_definitions_one_that_fits_is_enough(write: Write) -> None:
    branches = "if x:\n    def inner_steps(): pass\nelse:\n    def inner_steps(*a, **k): pass\n"
    read(write(branches))


def test_setup_is_optional_but_has_to_take_its_call(write: Write) -> None:
    read(write(INNER_STEPS + "def setup(model, device, num_gpus):\n    return model\n"))
    error = refusal(write(INNER_STEPS + "def setup(model):\n    return model\n"))
    assert error.code is Code.BAD_SIGNATURE and "setup" in error.message


# --- validator check --------------------------------------------------------------------------


def test_check_lists_every_problem(write: Write) -> None:
    path = write("def inner_steps(model): pass\ndef setup(): pass\ndef get_strategy(): return 3\n")
    problems = [remark.code for remark in check(path, 2, 8) if remark.kind is RemarkKind.PROBLEM]
    assert problems == [Code.BAD_SIGNATURE, Code.BAD_SIGNATURE, Code.STRATEGY_INVALID]


def test_check_knows_the_world_and_the_batch(write: Write) -> None:
    path = declared(write, "{'dp_size': 3}")
    assert [r.code for r in check(path, 2, 9) if r.kind is RemarkKind.PROBLEM] == [
        Code.STRATEGY_WORLD_MISMATCH
    ]
    assert [r.code for r in check(path, 3, 8) if r.kind is RemarkKind.PROBLEM] == [
        Code.STRATEGY_INVALID
    ]
    fine = check(path, 3, 9)
    assert all(remark.kind is RemarkKind.OK and remark.code is Code.OK for remark in fine)
    assert any("3 of 9 rows" in remark.message for remark in fine)


@pytest.mark.parametrize(
    ("imports", "missing"),
    [
        ("import no_such_thing.below as n, torch", "no_such_thing"),
        ("from no_such_thing.below import a", "no_such_thing"),
        ("import zz_no_such_thing, aa_no_such_thing", "aa_no_such_thing, zz_no_such_thing"),
        ("import torch.nn, os, env.benchmark, __main__", None),
        ("from . import no_such_thing", None),
        ("try:\n    import no_such_thing\nexcept ImportError: pass", None),
        ("if False:\n    import no_such_thing", None),
        ("def f():\n    import no_such_thing", None),
    ],
)
def test_check_names_packages_that_are_not_here(
    write: Write, imports: str, missing: str | None
) -> None:
    remarks = check(write(f"{imports}\n{INNER_STEPS}{STRATEGY}"), 2, 8)
    notes = [remark.message for remark in remarks if remark.kind is RemarkKind.NOTE]
    assert notes == (
        []
        if missing is None
        else [
            f"not installed here: {missing}; it has to be where the file is judged, at level docker in the "
            "image"
        ]
    )
    assert all(remark.kind is not RemarkKind.PROBLEM for remark in remarks)


def test_packages_are_few_and_their_names_short(write: Write) -> None:
    """What a file says of itself goes into a message only within limits."""
    names = [f"no_such_thing_{number:03}" for number in range(100)] + ["n" * 65, "no_such_thíng"]
    source = "".join(f"import {name}\n" for name in names) + INNER_STEPS + STRATEGY
    remark = check(write(source), 2, 8)[-1]
    assert "no_such_thing_063; it" in remark.message and "no_such_thing_064" not in remark.message


def test_check_reports_what_read_would_refuse(write: Write, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(write(INNER_STEPS))
    assert [remark.code for remark in check(link, 1, 1)] == [Code.FILE_UNREADABLE]
    assert check(write("def\n"), 1, 1)[-1].code is Code.SYNTAX_ERROR
    with pytest.raises(InputError):
        check(tmp_path / "missing.py", 1, 1)
