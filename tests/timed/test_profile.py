"""A train file under the profiler: figures for its author, out of a sandbox that is not trusted."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from harness.api import profile_file
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError, SubmissionError
from harness.protocol.profile import PARTS, Operation, RankProfile
from harness.report import profile_table
from harness.timed import profile
from tests.project import ROOT

SUBMISSIONS = ROOT / "submissions"


@pytest.mark.slow
def test_every_rank_is_recorded_and_its_parts_add_up(snapshot: Snapshot, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    profiles = profile_file(SUBMISSIONS / "train_ddp.py", trace, quiet=True)
    assert len(profiles) == 2
    for each in profiles:
        parts = {part: getattr(each, part) for part in (*PARTS, "other")}
        assert sum(parts.values()) == pytest.approx(each.seconds, rel=1e-6)
        assert parts["compute"] > parts["data"] > 0
        assert parts["communication"] > 0 and parts["optimizer"] > 0 and parts["commitment"] > 0
        assert "aten::mm" in [operation.name for operation in each.operations]
    for file in (trace, tmp_path / "trace.rank1.json"):
        assert json.loads(file.read_bytes())["traceEvents"]


@pytest.mark.slow
def test_a_file_that_fails_is_told_so_with_the_end_of_its_log(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    file = ROOT / "tests" / "submissions" / "raises_in_warmup.py"
    with pytest.raises(SubmissionError, match="the profiled run failed") as caught:
        profile_file(file, tmp_path / "trace.json", world_size=1, quiet=True)
    assert "train.py" in caught.value.detail
    assert not (tmp_path / "trace.json").exists()


def test_a_trace_needs_a_folder_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder for"):
        profile_file(SUBMISSIONS / "train_ddp.py", tmp_path / "no" / "trace.json", quiet=True)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large", "missing"])
def test_what_lies_in_the_outbox_in_place_of_a_profile_is_neither_followed_nor_waited_for(
    tmp_path: Path, kind: str
) -> None:
    file, secret = tmp_path / "rank0.json", tmp_path / "secret"
    secret.write_text("{}")
    if kind == "link":
        file.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "large":
        file.write_bytes(b" " * 1001)
    with pytest.raises(OSError):
        profile._opened(file, 1000)


def test_nonsense_is_no_profile(tmp_path: Path) -> None:
    file = tmp_path / "rank0.json"
    file.write_text('{"seconds": "long"}')
    with pytest.raises(SubmissionError, match="is no profile") as caught:
        profile._figures(file)
    assert caught.value.code is Code.RESULT_INVALID


def rank(seconds: float, *operations: tuple[str, float]) -> RankProfile:
    half, tenth = seconds / 2, seconds / 10
    return RankProfile(
        seconds=seconds, commitment=tenth, data=0.0, optimizer=tenth, compute=half,
        communication=tenth, other=2 * tenth,
        operations=tuple(Operation(name, 1234, dear) for name, dear in operations),
    )  # fmt: skip


def shown(*profiles: RankProfile, mfu: float | None = None) -> str:
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(profile_table(profiles, mfu))
    return captured.get()


def test_shares_and_the_dearest_operations_are_shown_rank_by_rank() -> None:
    fast = rank(1.0, ("mm", 0.4), ("add", 0.1))
    slow = rank(2.0, ("mm", 0.5), ("slow\x1b[2J\nACCEPTED", 1.0))
    said = shown(fast, slow, mfu=0.2)
    rows = [line.split() for line in said.split("dearest operations")[1].splitlines()]
    assert rows[1:5] == [
        ["operation", "rank", "0", "rank", "1"],
        ["slow?[2J?ACCEPTED", "–", "1.000", "50.0%"],
        ["mm", "0.400", "40.0%", "0.500", "25.0%"],
        ["add", "0.100", "10.0%", "–"],
    ]
    assert "MFU 20.00%: 40.00% while ranks compute, which is 50% of the time" in said


def test_of_many_ranks_the_operations_of_the_slowest_are_shown() -> None:
    said = shown(*(rank(seconds, ("mm", 0.1)) for seconds in (1.0, 5.0, 2.0, 4.0, 3.0)))
    assert "rank 1" in said and "rank 3" in said and "rank 4" in said
    assert "rank 0" not in said and "rank 2" not in said
