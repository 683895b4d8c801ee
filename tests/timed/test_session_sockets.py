"""Who may connect to a rank's socket, and what is left of it."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from harness.errors import Code, InputError
from harness.protocol.messages import (
    Ready,
    Stage,
)
from harness.timed.session import Session, peer_user
from tests.timed.scripted_ranks import (
    WAIT,
    FakeSandbox,
    connect,
    ranks,
    ready,
    refusal,
    session,
    watch,
)

pytest_plugins = ("tests.timed.scripted_ranks",)
pytestmark = pytest.mark.usefixtures("short_grace")

# --- who may connect ------------------------------------------------------------------------------


def test_a_process_of_another_user_is_not_taken_for_a_rank(tmp_path: Path) -> None:
    with session(tmp_path, ready) as judge:
        watch(judge, FakeSandbox(user=os.geteuid() + 1))
        assert refusal(judge, seconds=0.3).code is Code.TIMED_OUT


def test_the_rank_can_still_connect_after_a_process_of_another_user_has_tried(
    tmp_path: Path,
) -> None:
    sandbox = FakeSandbox(user=os.geteuid() + 1)
    with Session(tmp_path, 1, lambda stage: None) as judge:
        judge.handed_over = True
        watch(judge, sandbox)
        with connect(tmp_path, 0, Ready(run=5)) as intruder:
            refusal(judge, seconds=0.1)
            with suppress(ConnectionResetError):
                assert intruder.recv(1) == b""
        sandbox.user = os.geteuid()
        with connect(tmp_path, 0, Ready(run=0)):
            judge.gather(Ready, Stage.SETUP, WAIT, run=0)


def test_the_user_of_a_connection_is_told_from_its_group_and_its_process() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else for a moment")
    group = os.getegid()
    try:
        os.setegid(4_321)
        os.seteuid(1_234)
        ours, theirs = socket.socketpair(socket.AF_UNIX)
    finally:
        os.seteuid(0)
        os.setegid(group)
    with ours, theirs:
        assert peer_user(ours) == 1_234


def test_a_second_connection_to_a_socket_is_refused(tmp_path: Path) -> None:
    with session(tmp_path, ready) as judge:
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
        with socket.socket(socket.AF_UNIX) as intruder, pytest.raises(ConnectionRefusedError):
            intruder.connect(str(tmp_path / "rank0.sock"))


def test_a_rank_that_is_another_user_can_reach_its_socket(tmp_path: Path) -> None:
    with Session(tmp_path, 1, lambda stage: None):
        assert stat.S_IMODE((tmp_path / "rank0.sock").stat().st_mode) == 0o666


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_session_that_is_over_holds_no_descriptor_and_takes_no_connection(tmp_path: Path) -> None:
    before = descriptors()
    with ranks(tmp_path, Ready(run=0)) as (judge, _):
        judge.gather(Ready, Stage.SETUP, WAIT, run=0)
    (tmp_path / "other").mkdir()
    with Session(tmp_path / "other", 2, lambda stage: None) as never_met:
        pass
    # Both sessions are still referred to: it is not the garbage collector that has closed them.
    assert judge is not never_met
    assert descriptors() <= before
    with pytest.raises(ConnectionRefusedError):
        connect(tmp_path / "other", 0)


def test_a_temporary_folder_with_too_long_a_path_is_the_callers_fault(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    before = descriptors()
    with pytest.raises(InputError, match="TMPDIR") as caught:
        Session(folder, 1, lambda stage: None)
    assert caught.value.code is Code.BAD_ARGUMENT
    assert not [fd for fd in descriptors() - before if is_socket(fd)]


def is_socket(descriptor: str) -> bool:
    with suppress(FileNotFoundError):  # the one that listed them
        return str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("socket:")
    return False
