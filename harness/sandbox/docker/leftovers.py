"""Containers of judges and supervisors that were killed: found by their labels, removed on demand."""

import contextlib
from dataclasses import dataclass

from harness.sandbox.docker.container import JUDGE_LABEL, SANDBOX_LABEL
from harness.sandbox.docker.engine import answering, connect
from harness.sandbox.judge_process import judge_lives

REMOVAL_SECONDS = 60.0


@dataclass(frozen=True)
class SandboxContainer:
    """A container that some judge started.

    Attributes:
        name: as the engine lists it.
        state: the engine's word for it, such as "running" or "exited".
        judge: whether the judge that started it lives; None: it cannot be seen from here (it runs in
            another container, or as somebody whom this machine hides).
    """

    name: str
    state: str
    judge: bool | None

    @property
    def left(self) -> bool:
        """Whether nobody will come for it."""
        return self.judge is False


def sandbox_containers() -> tuple[SandboxContainer, ...]:
    """All of them, in no order. Raises InputError where there is no engine to ask."""
    with answering(), contextlib.closing(connect()) as client:
        listed = client.containers(all=True, filters={"label": SANDBOX_LABEL})
    return tuple(
        SandboxContainer(
            name=str(each["Names"][0]).lstrip("/"),
            state=str(each["State"]),
            judge=judge_lives(str(each["Labels"].get(JUDGE_LABEL, ""))),
        )
        for each in listed
    )


def remove_containers(every: bool = False) -> tuple[list[str], list[str]]:
    """Kill and remove what no judge will come for.

    Args:
        every: also the containers of judges that live or that cannot be seen from here.

    Returns:
        Names of what was removed, and sentences about what was not.

    Raises:
        InputError: there is no engine to ask.
    """
    from docker.errors import APIError, NotFound

    removed: list[str] = []
    kept: list[str] = []
    wanted = [each for each in sandbox_containers() if each.left or every]
    with answering(), contextlib.closing(connect(REMOVAL_SECONDS)) as client:
        for each in wanted:
            try:
                client.remove_container(each.name, v=True, force=True)
            except NotFound:
                continue  # its own supervisor was quicker
            except APIError as error:
                kept.append(f"{each.name}: {error.explanation or error}")
            else:
                removed.append(each.name)
    return removed, kept
