"""The fastest that this machine was ever seen: a peak of a slow moment flatters the MFU."""

import os
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from harness.paths import data_folder
from harness.records import Record
from harness.score.peaks import Peak

FILE: Final = "cpu-peaks.json"
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


_KNOWN: Final = TypeAdapter(dict[str, KnownPeak])


def settled(before: Peak, after: Peak) -> tuple[Peak, list[str]]:
    """What an evaluation's MFU is against, and what its reader has to know of that.

    Args:
        before, after: measured before and after the timed runs.

    Returns:
        The largest of both and of all that was ever measured here; a sentence if there is a doubt.
    """
    folder = data_folder()
    name = f"{_cpu_name()}, {before.device}, torch {version('torch')}"
    known = _read(folder)
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
        _write(folder, known | {name: best})
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


def _read(folder: Path) -> dict[str, KnownPeak]:
    """Nothing where there is no such file, or none that we understand."""
    with suppress(OSError, ValidationError):
        return _KNOWN.validate_json((folder / FILE).read_bytes())
    return {}


def _write(folder: Path, known: dict[str, KnownPeak]) -> None:
    """A machine that cannot remember, as a container that is thrown away, measures anew each time."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{FILE}.part"
        part.write_bytes(_KNOWN.dump_json(known, indent=1))
        os.replace(part, folder / FILE)  # noqa: PTH105
