"""What is quoted of a log when a rank has died."""

import pytest

from harness.last_words import LAST_LINES, last_words

STACK = """step 1
Fatal Python error: Segmentation fault

Stack (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/tmp/w/inbox/train.py", line 16 in helper
  File "/tmp/w/inbox/train.py", line 20 in inner_steps
  File "/tmp/w/code/env/worker.py", line 216 in train

Extension modules: torch._C (total: 1)
Fatal Python error: Aborted
  File "/tmp/w/inbox/train.py", line 99 in inner_steps
"""
SUMMARY = """torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
  traceback : Signal 11 (SIGSEGV) received by PID 7
"""


def test_a_signal_an_error_and_a_line_are_told_and_the_stack_down_to_the_train_file_is_quoted() -> (
    None
):
    words = last_words(STACK + SUMMARY)
    assert words.sentence == "SIGSEGV, Segmentation fault, line 16 in helper"
    assert words.quotation.splitlines() == [
        "Fatal Python error: Segmentation fault",
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
        '  File "/tmp/w/inbox/train.py", line 16 in helper',
        '  File "/tmp/w/inbox/train.py", line 20 in inner_steps',
    ]


def test_a_signal_alone_is_told_with_the_last_lines() -> None:
    words = last_words("line\n" * 200 + SUMMARY.replace("SIGSEGV", "SIGKILL"))
    assert words.sentence == "SIGKILL"
    assert len(words.quotation.splitlines()) == LAST_LINES


@pytest.mark.parametrize("log", ["", "\n\n", "it just ended"])
def test_a_log_that_tells_nothing_adds_nothing(log: str) -> None:
    assert last_words(log).sentence == ""
    assert last_words(log).quotation == log.rstrip()


def test_a_forged_error_is_one_line_and_as_long_as_its_stack() -> None:
    log = (
        "Fatal Python error: x\x1b[2Jy"
        + "z" * 500
        + "\n"
        + '  File "/a/train.py", line 1 in f\n' * 10_000
    )
    words = last_words(log)
    assert "\x1b" not in words.sentence and len(words.sentence) < 300
    assert len(words.quotation.splitlines()) == 1 + LAST_LINES


def test_a_stack_without_the_train_file_is_quoted_whole() -> None:
    log = 'Fatal Python error: Aborted\n  File "/lib/a.py", line 1 in f\n  File "/lib/b.py", line 2 in g\n'
    assert last_words(log).sentence == "Aborted"
    assert last_words(log).quotation == log.rstrip()
