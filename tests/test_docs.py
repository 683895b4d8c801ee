"""What the pages tell people to type exists: every command and option of `validator`."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.benchmark.hparams import LoadedHparams
from harness.cli import app
from tests.project import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "submissions" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMAND = re.compile(r"(?:^|[`(]|&& |-m harness\.cli )validator ([a-z][^`\n]*)", re.M)
PLACEHOLDER = re.compile(r"[A-Z]{2,}|<|\.\.\.")


def commands_in(text: str) -> list[str]:
    """Whatever stands after `validator ` in a block or in backticks, without what follows it in a shell."""
    return [re.split(r"\s+[#|>]|\s&&|\s{2,}#|;", each)[0].strip() for each in COMMAND.findall(text)]


def problem_with(command: str) -> str | None:
    """Why it could not be typed, or None."""
    try:
        words = shlex.split(command)
    except ValueError:
        return "unbalanced quotes"
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands"):
        if not words or words[0].startswith("-") or PLACEHOLDER.match(words[0]):
            break
        inner = found.commands.get(words[0].split("|")[0])
        if inner is None:
            return f"there is no command {words[0]}"
        found, words = inner, words[1:]
    options = {option for each in found.params for option in each.opts} | {"--help"}
    named = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    unknown = [option for option in named if option not in options]
    return f"{found.name} has no {unknown[0]}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_named_exist(page: Path) -> None:
    wrong = {
        command: problem
        for command in commands_in(page.read_text(encoding="utf-8"))
        if (problem := problem_with(command)) is not None
    }
    assert not wrong


def test_what_does_not_exist_is_found() -> None:
    text = "```\nvalidator calibrate --write   # it is gone\nvalidator fly | cat\n```\n`validator run X`"
    assert commands_in(text) == ["calibrate --write", "fly", "run X"]
    assert [problem_with(each) for each in commands_in(text)] == [
        "calibrate has no --write",
        "there is no command fly",
        None,
    ]


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.M)


def anchors_of(text: str) -> set[str]:
    """The names that a page's headings have as targets of links, as GitHub makes them."""
    words = (re.sub(r"[`*]", "", heading).lower() for heading in HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in words}


def broken_links(page: Path, text: str) -> list[str]:
    """Of those to files and headings of the project."""
    broken = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (
            anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))
        ):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken_links(page, page.read_text(encoding="utf-8"))


def test_a_link_to_nothing_is_found() -> None:
    page = ROOT / "docs" / "power.md"
    text = "[a](noise.md) [b](nowhere.md) [c](noise.md#wrong-versions) [d](noise.md#no)"
    assert broken_links(page, text) == ["nowhere.md", "noise.md#no"]


def test_the_verdict_that_the_readme_shows_is_by_the_benchmark_s_tolerances(
    loaded: LoadedHparams,
) -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("╰──")[0]
    rows = dict(re.findall(r"^│ ([a-z ]+?) +\S+e\S+ +(\S+e\S+)  ok", shown, re.M))
    tolerances = loaded.hparams.verify.tolerances.model_dump(exclude_none=True)
    assert rows == {name.replace("_", " "): f"{value:.2e}" for name, value in tolerances.items()}
