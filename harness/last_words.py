"""What a rank that died has left in its log: the signal, and the line of the train file.

It is the log of a sandbox, so these are somebody's words, to be quoted and not believed: torchrun names the
signal in its summary, and faulthandler (`env.worker` turns it on) prints the stack of a fatal error.
"""

import re
from dataclasses import dataclass
from typing import Final

from harness.protocol.text import one_line

LAST_LINES: Final = 60
FATAL: Final = re.compile(r"^Fatal Python error: (.+)$", re.M)
FRAME: Final = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
SIGNAL: Final = re.compile(r"Signal \d+ \((SIG[A-Z0-9]+)\) received by PID")
TRAIN_FILE: Final = "/train.py"


@dataclass(frozen=True)
class LastWords:
    """Attributes:
    sentence: a signal, an error, a place; empty where the log tells none.
    quotation: the lines of the log that say so, or else its last ones.
    """

    sentence: str
    quotation: str


def last_words(log: str) -> LastWords:
    """Of the rank whose death the log tells first."""
    said = []
    signal = SIGNAL.search(log)
    if signal is not None:
        said.append(signal[1])
    fatal = FATAL.search(log)
    if fatal is None:
        return LastWords(", ".join(said), "\n".join(log.rstrip().splitlines()[-LAST_LINES:]))
    said.append(one_line(fatal[1]))
    stack = _stack(log[fatal.start() :].splitlines())
    own = [
        match for line in stack if (match := FRAME.match(line)) and match[1].endswith(TRAIN_FILE)
    ]
    if own:
        said.append(f"line {own[0][2]} in {one_line(own[0][3])}")
    return LastWords(", ".join(said), "\n".join([fatal[0], *_down_to_the_train_file(stack)]))


def _stack(lines: list[str]) -> list[str]:
    """The frames of the first stack, the innermost first."""
    first = next((n for n, line in enumerate(lines) if FRAME.match(line)), len(lines))
    frames = []
    for line in lines[first : first + LAST_LINES]:
        if not FRAME.match(line):
            break
        frames.append(line)
    return frames


def _down_to_the_train_file(stack: list[str]) -> list[str]:
    """Without what called it, which is ours; all of it where the train file is not in it."""
    places = [n for n, line in enumerate(stack) if f'{TRAIN_FILE}"' in line]
    return stack[: places[-1] + 1] if places else stack
