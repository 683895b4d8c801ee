"""Which level keeps what: the table of docs/sandbox.md, as the tests of this folder read it."""

import os
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import pytest


class Promise(Enum):
    """What not every level keeps; the docstring of this package says what each means."""

    PRIVILEGES = auto()
    USER = auto()
    TIDY = auto()
    TASKS = auto()
    FILES = auto()
    BARE = auto()
    NETWORK = auto()
    NAMESPACES = auto()
    TEMPORARY = auto()
    ESCAPES = auto()


EVERYTHING: Final = frozenset(Promise)
PROMISES: Final[Mapping[str, frozenset[Promise]]] = {
    "docker": EVERYTHING - {Promise.BARE},  # the image has accounts and folders of its own
    "bubblewrap": EVERYTHING,
    "user": frozenset(
        {Promise.PRIVILEGES, Promise.USER, Promise.TIDY, Promise.TASKS, Promise.ESCAPES}
    ),
    "none": frozenset(),
}


def kept_by(level: str) -> frozenset[Promise]:
    """What a level promises a judge that is who this process is; one without a row, everything."""
    promised = PROMISES.get(level, EVERYTHING)
    return promised if os.geteuid() == 0 else promised - {Promise.USER}


def promised(*promises: Promise) -> pytest.MarkDecorator:
    """The test is for levels that make all these promises."""
    return pytest.mark.promised(*promises)
