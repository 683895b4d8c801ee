"""Fixture: the project's image, for tests that need an engine; and a loud line where there is none.

Test modules name this file in `pytest_plugins`, and mark their tests `container`.
"""

import json
import os
import subprocess
from collections.abc import Sequence

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.image_labels import DEFAULT_IMAGE, image_facts
from harness.benchmark.snapshot import Snapshot
from tests.sandbox_levels import REQUIRED


def docker(
    arguments: Sequence[str], stdin: bytes | None = None, seconds: float = 280
) -> "subprocess.CompletedProcess[bytes]":
    """Run the engine's command line client."""
    return subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, timeout=seconds, check=False
    )


@pytest.fixture(scope="session")
def image(loaded: LoadedHparams, snapshot: Snapshot) -> str:
    """The name of the image of this checkout's benchmark."""
    name = os.environ.get("TRAINJUDGE_IMAGE") or DEFAULT_IMAGE
    reason = _missing(name, image_facts(loaded, snapshot.manifest).labels())
    if reason is not None:
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    return name


def _missing(name: str, labels: dict[str, str]) -> str | None:
    """Why the image cannot be had, or None."""
    try:
        found = docker(
            ["image", "inspect", "--format", "{{json .Config.Labels}}", name], seconds=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "no engine: `docker` does not run here"
    if found.returncode != 0:
        said = found.stderr.decode(errors="replace").strip()
        return f"no engine, or no image {name}: {said}; `make image` builds it"
    there: dict[str, str] = json.loads(found.stdout) or {}
    wrong = [key for key, value in labels.items() if there.get(key) != value]
    if wrong:
        return f"the image {name} is of something else ({', '.join(wrong)}): `make image`"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [
        report
        for report in terminalreporter.getreports("skipped")
        if "container" in report.keywords
    ]
    if not skipped:
        return
    reasons = sorted({str(report.longrepr[2]) for report in skipped if report.longrepr})
    terminalreporter.section("CONTAINER TESTS SKIPPED", sep="!", red=True, bold=True)
    for reason in reasons:
        terminalreporter.line(f"{len(skipped)} tests of the container did not run: {reason}")
