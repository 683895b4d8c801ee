"""Which levels the suite is run for, and the launches that several tests look at."""

from collections.abc import Iterator

import pytest

from harness.sandbox import Level, Sandbox, choose
from tests.conformance.launches import Pair, Spied, look_round, run_pair
from tests.conformance.promises import kept_by
from tests.sandbox_levels import Available, work_folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--level",
        action="append",
        metavar="NAME",
        help="level of isolation to put to the test; more than once: several; default: all",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promised(promise, ...): for levels that keep these")


def _asked(config: pytest.Config) -> list[str]:
    """The levels that were asked for by name. The option is there only if this folder is named too."""
    asked: list[str] | None = config.getoption("--level", default=None)
    return asked or []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    own = any(mark.args[0] == "level" for mark in metafunc.definition.iter_markers("parametrize"))
    if "level" in metafunc.fixturenames and not own:
        levels = _asked(metafunc.config) or [str(level) for level in Level]
        metafunc.parametrize("level", levels, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a level does not promise: neither run nor skipped."""
    without = [item for item in items if not _is_promised(item)]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


def _is_promised(item: pytest.Item) -> bool:
    needed = {promise for mark in item.iter_markers("promised") for promise in mark.args}
    if not needed or not isinstance(item, pytest.Function):
        return True
    return needed <= kept_by(str(item.callspec.params["level"]))


@pytest.fixture(scope="session")
def level(request: pytest.FixtureRequest, available: Available) -> Level:
    """A level by its name: one after the other, all that work here or that were asked for."""
    level = Level(request.param)
    if not available[level].available:
        reason = f"level {level}: {available[level].reason}"
        if _asked(request.config):
            pytest.fail(reason)
        pytest.skip(reason)
    return level


@pytest.fixture(scope="session")
def sandbox(level: Level) -> Sandbox:
    return choose(level)


@pytest.fixture(scope="session")
def spied(level: Level) -> Iterator[Spied]:
    """One launch of the program that looks round."""
    with work_folder() as folder:
        yield look_round(level, folder)


@pytest.fixture(scope="session")
def pair(level: Level) -> Pair:
    """Two sandboxes at the same time, which a judge leaves in the middle of its work."""
    with work_folder() as folder:
        return run_pair(level, folder)
