"""The mutation run: it makes the edits that people make, and tells found ones from survivors."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.equivalents import read_equivalents
from tests.mutation.mutants import mutants
from tests.mutation.table import read_table
from tests.project import ROOT

SAMPLE = '''"""A module of which the tests below see some."""


def capped(value, most):
    return min(value, most)


def count(number):
    done = 0
    while done < number:
        done += 1
    return done


def at_least(value, least):
    return value >= least


def unseen(one, other):
    return one - other
'''
TESTS = """
from sample import at_least, capped, count

def test_capped(): assert capped(1, 2) == 1
def test_count(): assert count(3) == 3
def test_at_least(): assert at_least(2, 1)
def test_that_fails_without_any_edit(): assert count(3) == 4
"""
SETTINGS = """
shortest_cpu = 2
shortest_wait = 20
[[target]]
sources = ["sample.py"]
tests = ["test_sample.py"]
"""
EQUIVALENT = """
[[edit]]
file = "sample.py"
function = "count"
original = "done = 0"
mutated = "{}"
reason = "This is said for the sake of a test."
"""
Verdicts = dict[tuple[str, str], tuple[str, str]]


def write_project(folder: Path, equivalent: str) -> None:
    files = {
        "sample.py": SAMPLE,
        "test_sample.py": TESTS,
        "targets.toml": SETTINGS,
        "equivalent.toml": EQUIVALENT.format(equivalent),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def run_mutation(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.mutation",
            "--root",
            folder,
            "--settings",
            folder,
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, str, int]:
    """The project above, edited: its folder, the verdicts by edit, what was said, the status."""
    folder = tmp_path_factory.mktemp("sample")
    write_project(folder, "done = 1")
    run = run_mutation(folder)
    assert run.returncode in (0, 1), run.stderr
    entries = json.loads((folder / "build" / "mutants" / "all.json").read_text(encoding="utf-8"))
    verdicts = {(e["original"], e["mutated"]): (e["verdict"], e["by"]) for e in entries}
    return folder, verdicts, run.stdout, run.returncode


@pytest.mark.parametrize(
    ("original", "mutated", "verdict", "test"),
    [
        ("return min(value, most)", "return max(value, most)", "found", "test_capped"),
        ("while done < number:", "while done >= number:", "found", "test_count"),
        ("done += 1", "pass", "found: time limit", ""),
        ("return value >= least", "return value < least", "found", "test_at_least"),
        ("return value >= least", "return value > least", "survived", ""),
        ("return one - other", "return one + other", "not reached", ""),
        ("done = 0", "done = 1", "changes nothing", ""),
    ],
)
def test_an_edit_is_found_by_a_test_that_reaches_it_or_survives(
    finished: tuple[Path, Verdicts, str, int], original: str, mutated: str, verdict: str, test: str
) -> None:
    by = f"test_sample.py::{test}" if test else ""
    assert finished[1][original, mutated] == (verdict, by)


def test_survivors_are_shown_and_too_many_fail_the_run(
    finished: tuple[Path, Verdicts, str, int],
) -> None:
    _, verdicts, said, status = finished
    assert "sample.py:16 at_least  ComparisonOperator_GtE_Gt\n  - return value >= least\n" in said
    assert "left out: test_sample.py::test_that_fails_without_any_edit: assert 3 == 4" in said
    survived = [v for v, _ in verdicts.values() if v in ("survived", "not reached")]
    assert (len(verdicts), len(survived)) == (10, 2)
    assert "share found: 77.8%" in said  # 7 of the 9 that change something
    assert status == 1


def test_a_run_that_is_ended_early_tells_what_it_has_found(tmp_path: Path) -> None:
    write_project(tmp_path, "done = 1")
    options = ("--root", tmp_path, "--settings", tmp_path, "--jobs", "1")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mutation", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        while not run.stdout.readline().startswith("1/"):
            assert run.poll() is None
        run.terminate()
        said = run.stdout.read()
    assert run.returncode == 143
    assert "ended early, with these:" in said
    assert re.search(r"^all +[1-8] ", said, re.MULTILINE)  # of the 9 that change something


def test_the_source_on_disk_is_never_touched(finished: tuple[Path, Verdicts, str, int]) -> None:
    assert (finished[0] / "sample.py").read_text(encoding="utf-8") == SAMPLE


def test_an_equivalent_that_matches_no_edit_any_more_is_an_error(tmp_path: Path) -> None:
    write_project(tmp_path, "done = 7")
    run = run_mutation(tmp_path)
    assert run.returncode == 2
    assert "matches no edit" in run.stderr


@pytest.mark.parametrize(
    ("code", "edited"),
    [
        ("if a < b:\n    c()", "if a <= b:"),
        ("if a < b:\n    c()", "if a >= b:"),
        ("if a in b:\n    c()", "if a not in b:"),
        ("if a.b:\n    c()", "if not (a.b):"),
        ("if a and b:\n    c()", "if a or b:"),
        ("if a:\n    raise b", "if False:"),
        ("a = b * c", "a = b / c"),
        ("a = -b", "a = b"),
        ("a = 3", "a = 4"),
        ("a = 1e-3", "a = (1e-3 * 2)"),
        ("a = True", "a = False"),
        ("a = all(b)", "a = any(b)"),
        ("a = median(b)", "a = max(b)"),
        ("a = abs(b)", "a = (b)"),
        ("a = np.sqrt(b)", "a = (b)"),
        ("a = sorted(b, key=c)", "a = sorted(b, key=c, reverse=True)"),
        ("a = b[:c]", "a = b[:(c) + 1]"),
        ("a = b(c, d)", "a = b(d, c)"),
        ("a = [b for b in c if b.d]", "a = [b for b in c if True]"),
        ('a = b["c"]', 'a = b["XXc"]'),
        ('a = b == "c"', 'a = b == "XXc"'),
        ('class A(StrEnum):\n    B = "c"', 'B = "XXc"'),
        ("a.b(c)", "pass"),
        ("a[b] = c", "pass"),
        ("for a in b:\n    c()", "for a in []:"),
        ("for a in b:\n    continue", "break"),
        ("try:\n    a()\nexcept OSError:\n    pass", "except CosmicRayTestingException:"),
        (
            "try:\n    a()\nexcept (b.C, OSError):\n    pass",
            "except (b.CosmicRayTestingException, OSError):",
        ),
        (
            "try:\n    a()\nexcept (b.C, OSError):\n    pass",
            "except (b.C, CosmicRayTestingException):",
        ),
        (
            "try:\n    a()\nexcept b.C:\n    pass",
            "except b.CosmicRayTestingException:",
        ),
        ("def a() -> list[int]:\n    return b", "return []"),
        ("def a() -> bool:\n    return b", "return True"),
        ("class A:\n    @field_validator('b')\n    def c(cls, d):\n        return d", ""),
    ],
)
def test_edits_that_people_make_are_made(code: str, edited: str) -> None:
    made = [" ".join(mutant.mutated.split()) for mutant in mutants("a.py", code + "\n")]
    assert edited in made


@pytest.mark.parametrize(
    "code",
    [
        '"""Between 1 and 2: not so."""',
        "def a(b: int | None, /, *c: tuple[int, 3], **d: int) -> dict[str, int | None]: ...",
        "a: Literal[1] | None = b",
        "__all__ = ['a', 'b']",
        "if TYPE_CHECKING:\n    import a",
        'a = f"{b + 1} of {c[:d]}"',
        'a = f"{b}" if c.d else "none at all"',
        "@dataclass(frozen=True)\nclass A: ...",
        "from a import *",
        "a = [*b, *c]",
    ],
)
def test_annotations_texts_and_declarations_are_left_alone(code: str) -> None:
    assert [mutant.mutated for mutant in mutants("a.py", code + "\n")] == []


def test_where_an_edit_is_and_when_it_runs() -> None:
    code = (
        "A = 1\n\n\nclass B:\n    def c(self, d=2):\n        return e(\n            3\n        )\n"
    )
    found = [(m.line, m.function, m.statement, m.at_import) for m in mutants("a.py", code)]
    assert found[0] == (1, "", (1, 1), True)
    assert (5, "B.c", (5, 5), True) in found
    assert found[-1] == (7, "B.c", (6, 8), False)


def test_edits_come_in_the_same_order_each_time_and_never_twice() -> None:
    code = (ROOT / "harness" / "protocol" / "wire.py").read_text(encoding="utf-8")
    once, again = (mutants("wire.py", code) for _ in range(2))
    assert once == again
    assert len({mutant.code for mutant in once}) == len(once)


def test_the_projects_own_table_and_equivalents_can_be_read() -> None:
    folder = ROOT / "tests" / "mutation"
    sources = [
        s for target in read_table(folder / "targets.toml", ROOT).targets for s in target.sources
    ]
    assert len(sources) == len(set(sources)) > 20
    read_equivalents(folder / "equivalent.toml")
