"""The fastest that this machine was ever seen: a peak of a slow moment flatters the MFU."""

import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from harness.host.remembered import Remembered
from harness.records import Record
from harness.score.peaks import Peak

#: Two measurements that differ by more than this share were not of the same machine at rest.
TOLERATED: Final = 0.05
WHY: Final = "something else keeps this machine busy, or its clock changes"
CPUINFO: Final = Path("/proc/cpuinfo")


class KnownPeak(Record):
    """The largest peak of one device, and what was measured when it was found."""

    tflops: float
    at: float
    before: float
    after: float


KNOWN: Final = Remembered("cpu-peaks.json", TypeAdapter(dict[str, KnownPeak]))


def settled(before: Peak, after: Peak) -> tuple[Peak, list[str]]:
    """What an evaluation's MFU is against, and what its reader has to know of that.

    Args:
        before, after: measured before and after the timed runs.

    Returns:
        The largest of both and of all that was ever measured here; a sentence if there is a doubt.
    """
    name = f"{_cpu_name()}, {before.device}, torch {version('torch')}"
    known = KNOWN.read()
    found = max(before.tflops, after.tflops)
    doubts = []
    if min(before.tflops, after.tflops) < (1 - TOLERATED) * found:
        doubts.append(
            f"the CPU's peak was {before.tflops:.3g} TFLOP/s a device before the runs and "
            f"{after.tflops:.3g} after"
        )
    best = known.get(name)
    if best is None or found > best.tflops:
        best = KnownPeak(tflops=found, at=time.time(), before=before.tflops, after=after.tflops)
        KNOWN.write(known | {name: best})
    elif found < (1 - TOLERATED) * best.tflops:
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(best.at))
        doubts.append(
            f"the CPU's peak was {best.tflops:.3g} TFLOP/s a device here at {at}, which counts, and "
            f"{found:.3g} at most around these runs"
        )
    said = ["; ".join(doubts) + f": {WHY}"] if doubts else []
    return Peak(best.tflops, "measured", before.device), said


def _cpu_name() -> str:
    with suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return "cpu"
