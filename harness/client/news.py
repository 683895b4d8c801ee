"""What is new between two looks at a submission, as lines to be shown one below the other."""

from collections.abc import Sequence

from harness.client.calls import RemoteStatus


def news(before: RemoteStatus | None, now: RemoteStatus) -> list[str]:
    """Lines that have not been shown yet: what happened, its turn, what the judge says.

    Args:
        before: the last look; None at the first.
        now: the look at hand.
    """
    known = {event.id for event in before.history} if before else set()
    lines = [event.text for event in now.history if event.id not in known]
    if now.state == "queued" and (before is None or _place(before) != _place(now)):
        lines.append(turn(now))
    lines += _new_lines(before.progress if before else (), now.progress)
    return lines


def turn(status: RemoteStatus) -> str:
    """How long the line before it is."""
    if status.position is None:
        return "it waits for its turn"
    before = status.position - 1
    if before == 0:
        return "it waits, and is next"
    return f"it waits, {before} before it"


def _place(status: RemoteStatus) -> tuple[str, int | None]:
    return status.state, status.position


def _new_lines(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """What `now` has after the end of `before`, of which the beginning may be cut off in `now`."""
    for count in range(min(len(before), len(now)), 0, -1):
        old = before[-count:]
        # The cut goes through a line.
        if list(old[1:]) == list(now[1:count]) and old[0].endswith(now[0]):
            return list(now[count:])
    return list(now)
