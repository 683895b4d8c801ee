"""Children for untrusted source: what one does or dies of is its own."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.errors import Code, JudgeError
from harness.parsing import child
from harness.parsing.ask import Broken, ask
from tests.parsing import children


def told(function: str, given: bytes = b"") -> Any:
    return ask(children.__name__, function, given)


def test_a_child_answers_to_what_it_was_given() -> None:
    assert told("echo", b"source") == {"given": "source"}
    large = b"x" * 2**20
    assert told("echo", large) == {"given": large.decode()}


def test_a_child_has_its_limits_and_nothing_open_but_its_three_files() -> None:
    with ThreadPoolExecutor(4) as threads:
        siblings = [threads.submit(told, "slow_echo", b"") for _ in range(3)]
        time.sleep(0.3)  # they are at it now, so their pipes are open in the server
        facts = told("facts")
        assert not any(sibling.done() for sibling in siblings)
    assert facts["descriptors"] == 3
    assert facts["core"] == 0
    assert (facts["cpu"], facts["memory"]) == (child.CPU_SECONDS, child.ADDRESS_SPACE_BYTES)


def test_children_work_at_the_same_time_and_none_gets_the_answer_of_another() -> None:
    began = time.monotonic()
    given = [str(number).encode() for number in range(12)]
    with ThreadPoolExecutor(len(given)) as threads:
        answers = list(threads.map(lambda each: told("slow_echo", each), given))
    assert [each["given"] for each in answers] == [each.decode() for each in given]
    assert time.monotonic() - began < 6  # each of them sleeps for one second


def test_all_children_are_of_one_server() -> None:
    assert told("facts")["server"] == told("facts")["server"] != os.getpid()


@pytest.mark.parametrize("number", [signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_child_that_its_source_is_too_much_for_says_how_it_broke_down(number: int) -> None:
    assert told("be_killed", str(int(number)).encode()) == Broken(signal.Signals(number).name)


def test_a_child_without_memory_broke_down_too() -> None:
    assert told("need_memory") == Broken("MemoryError")


def test_a_child_that_somebody_kills_is_our_failure() -> None:
    with pytest.raises(JudgeError, match="status -9") as caught:
        told("be_killed", str(int(signal.SIGKILL)).encode())
    assert caught.value.code is Code.INTERNAL


def test_a_mistake_of_ours_in_a_child_is_our_failure_with_its_traceback() -> None:
    with pytest.raises(JudgeError) as caught:
        told("fail")
    assert "a mistake of ours" in caught.value.detail and "in fail" in caught.value.detail
    assert told("echo", b"next") == {"given": "next"}


def test_a_server_that_was_killed_is_replaced_and_the_question_asked_again(tmp_path: Path) -> None:
    before = told("facts")["server"]
    assert told("kill_the_server_once", os.fsencode(tmp_path / "marker")) == {"alive": True}
    assert told("facts")["server"] != before


def test_a_server_that_cannot_live_is_our_failure_and_not_tried_for_ever() -> None:
    with pytest.raises(JudgeError, match="is the machine overloaded"):
        told("always_kill_the_server")
    assert told("echo", b"next") == {"given": "next"}


def test_many_who_lose_the_server_at_once_all_get_their_answers() -> None:
    server = told("facts")["server"]
    given = [str(number).encode() for number in range(8)]
    with ThreadPoolExecutor(len(given)) as threads:
        asked = [threads.submit(told, "slow_echo", each) for each in given]
        time.sleep(0.3)
        os.kill(server, signal.SIGKILL)
        answers = [each.result() for each in asked]
    assert [each["given"] for each in answers] == [each.decode() for each in given]


def test_the_server_ends_with_whoever_started_it() -> None:
    program = (
        "from harness.parsing.ask import ask; import os;"
        "print(ask('tests.parsing.children', 'facts', b'')['server'], flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    server = Path(f"/proc/{int(done.stdout)}")
    deadline = time.monotonic() + 10
    while server.exists() and time.monotonic() < deadline:
        # Whoever inherits it may leave it unwaited for.
        if "\nState:\tZ" in (server / "status").read_text():
            break
        time.sleep(0.05)
    else:
        assert not server.exists()
