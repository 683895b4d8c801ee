"""`validator serve`: starts on an empty folder, says where, ends in good order."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.project import ROOT


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    command = [sys.executable, "-m", "harness.cli", "serve", "--data", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [*command, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"serving at (http://\S+)", said)
        assert found is not None, said + process.stderr.read()
        yield process, found[1]
    finally:
        # The worker beside it too, should a test have failed.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return str(answer.read().decode())


def test_an_empty_folder_becomes_a_leaderboard(tmp_path: Path) -> None:
    with serving(tmp_path / "new") as (process, url):
        assert "No season yet" in get(url)
        assert '"ok"' in get(f"{url}/readyz")
        with urllib.request.urlopen(f"{url}/live", timeout=20) as stream:  # somebody watches
            assert stream.readline().startswith(b"event: changed")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert (tmp_path / "new" / "board.sqlite").is_file()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", "serve", "--data", str(tmp_path), "--port", port],
            cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"cannot listen at 127.0.0.1, port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_cannot_work_leaves_the_pages(tmp_path: Path) -> None:
    with serving(tmp_path, "--worker", "--sandbox", "nonsense") as (process, url):
        assert process.stderr is not None
        for line in process.stderr:
            if "the worker ended with status 2" in line:
                break
        assert "No season yet" in get(url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
