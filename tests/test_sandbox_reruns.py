"""The sandbox tests again where they could not be run as they are, in a mount namespace.

Level `user` needs a Python that every user can reach, and bubblewrap behaves differently for root and
for an ordinary user. In the namespace both are so. A quick run repeats there what depends on the
level or on the user; `make test-all` repeats everything.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox_levels import REQUIRED

from harness.sandbox import Availability, Level
from harness.sandbox.user import unreachable

pytest_plugins = ("sandbox_levels",)
REPOSITORY = Path(__file__).resolve().parents[1]
NOT_ROOT = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]

ISOLATION = "tests/test_sandbox_isolation.py"
ENDING = "tests/test_sandbox_ending.py"
LIMITS = "tests/test_sandbox_limits.py"
CHOICE = "tests/test_sandbox_choice.py"
ESCAPES = "tests/test_escapes.py"
EVERY_FILE = [ISOLATION, ENDING, LIMITS, CHOICE]

# A name that no longer exists makes pytest fail, so these lists cannot silently become empty.
USER = [
    f"{ISOLATION}::test_isolated_levels_hold_no_privilege[user]",
    f"{ISOLATION}::test_a_judge_that_is_root_gives_the_sandbox_a_real_user[user]",
    f"{ISOLATION}::test_sandboxes_that_run_together_have_different_users[user]",
    f"{ISOLATION}::test_nothing_of_the_judges_environment_leaks[user]",
    f"{ISOLATION}::test_a_sandbox_can_write_its_outbox_and_temporary_folder[user]",
    f"{ISOLATION}::test_torchrun_connects_its_ranks[user]",
    f"{ENDING}::test_stopping_ends_forked_doubly_forked_and_deaf_processes[user]",
    f"{ENDING}::test_nothing_survives_the_commands_own_exit[user]",
    f"{ENDING}::test_nothing_survives_a_judge_that_is_killed[user]",
    f"{ENDING}::test_temporary_files_do_not_outlive_a_sandbox[user]",
    f"{ENDING}::test_the_next_sandbox_cannot_reach_what_the_last_one_wrote[user]",
    f"{LIMITS}::test_a_fork_bomb_is_ended[user]",
    f"{LIMITS}::test_memory_over_the_limit_ends_the_sandbox[user-private]",
    f"{LIMITS}::test_temporary_files_are_limited[user]",
    f"{LIMITS}::test_an_outbox_over_its_limit_ends_the_sandbox[user-at-the-last-moment]",
    f"{ESCAPES}::test_no_attempt_gets_out_of_a_level_that_protects[user]",
    f"{ESCAPES}::test_a_train_file_gets_nothing_out_of_the_judge[user]",
]
BUBBLEWRAP_NOT_ROOT = [
    f"{ISOLATION}::test_bubblewrap_shows_only_what_the_job_names",
    f"{ISOLATION}::test_bubblewrap_has_a_loopback_and_no_other_network",
    f"{ISOLATION}::test_isolated_levels_hold_no_privilege[bubblewrap]",
    f"{ISOLATION}::test_nothing_of_the_judges_environment_leaks[bubblewrap]",
    f"{ISOLATION}::test_a_sandbox_can_write_its_outbox_and_temporary_folder[bubblewrap]",
    f"{ENDING}::test_stopping_ends_forked_doubly_forked_and_deaf_processes[bubblewrap]",
    f"{ENDING}::test_nothing_survives_the_commands_own_exit[bubblewrap]",
    f"{ENDING}::test_nothing_survives_a_judge_that_is_killed[bubblewrap]",
    f"{ENDING}::test_temporary_files_do_not_outlive_a_sandbox[bubblewrap]",
    f"{LIMITS}::test_a_fork_bomb_is_ended[bubblewrap]",
    f"{LIMITS}::test_memory_over_the_limit_ends_the_sandbox[bubblewrap-private]",
    f"{LIMITS}::test_temporary_files_are_limited[bubblewrap]",
    f"{LIMITS}::test_an_outbox_over_its_limit_ends_the_sandbox[bubblewrap-at-the-last-moment]",
    f"{ESCAPES}::test_no_attempt_gets_out_of_a_level_that_protects[bubblewrap]",
    f"{ESCAPES}::test_a_train_file_gets_nothing_out_of_the_judge[bubblewrap]",
]

REACHABLE = """
set -e
hold=$(mktemp -d)
mount --bind "$BASE" "$hold"
for folder in $CLOSED; do mount -t tmpfs -o mode=755 none "$folder"; done
mkdir -p "$BASE"
mount --move "$hold" "$BASE"
rmdir "$hold"
exec "$@"
"""


def rerun(selection: list[str], wrapper: list[str]) -> None:
    """pytest in a mount namespace in which the folders that close Python off are replaced."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("making a mount namespace needs root, unshare and setpriv")
    base = Path(sys.base_prefix).resolve()
    closed = [f for f in reversed(base.parents) if unreachable([f / "x"])][:1]
    if (reason := unreachable([REPOSITORY / "tests", Path(sys.prefix)])) is not None:
        pytest.skip(f"another user cannot read the tests: {reason}")
    environment = {**os.environ, "BASE": str(base), "HOME": "/tmp"}
    environment |= {"CLOSED": " ".join(map(str, closed)), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop(REQUIRED, None)  # these users have no engine
    inner = ["bash", "-c", REACHABLE, "bash", *wrapper, sys.executable, "-m", "pytest"]
    result = subprocess.run(
        ["unshare", "--mount", *inner, "-p", "no:cacheprovider", *selection],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    output = result.stdout + result.stderr
    if "unshare failed" in output:
        pytest.skip(f"no mount namespace here: {output.strip()}")
    assert result.returncode == 0, output
    assert " passed" in output and " skipped" not in output.splitlines()[-1], output


@pytest.fixture
def user_untested(available: dict[Level, Availability]) -> None:
    if available[Level.USER].available:
        pytest.skip("level user works here and was tested as it is")


@pytest.mark.usefixtures("user_untested")
def test_level_user_holds_too() -> None:
    rerun(USER, [])


def test_bubblewrap_holds_for_a_judge_that_is_not_root() -> None:
    rerun(BUBBLEWRAP_NOT_ROOT, NOT_ROOT)


@pytest.mark.slow
@pytest.mark.usefixtures("user_untested")
def test_level_user_passes_every_test() -> None:
    rerun([*EVERY_FILE, "-k", "user] or user-"], [])


@pytest.mark.slow
def test_bubblewrap_passes_every_test_for_a_judge_that_is_not_root() -> None:
    named = "bubblewrap] or bubblewrap- or bubblewrap_"
    rerun([*EVERY_FILE, "-k", f"({named}) and not root and not users and not next"], NOT_ROOT)
