"""Everything dangerous: running untrusted code, and ending it.

`choose` picks a level of isolation, `Sandbox.start` runs a `Job` at it, and the `Running` that it
returns ends with nothing left. `docs/sandbox.md` states every limit and every gap.

What a sandbox wrote is read elsewhere (`opening/`, `tensors/`). The supervisor process imports this
package, so it stays within the standard library.
"""

from harness.sandbox.code import code_folder, torchrun_argv
from harness.sandbox.job import Availability, Ending, EndReason, Fabric, Job, Level, Meeting
from harness.sandbox.probe import choose, probe
from harness.sandbox.running import NotEndedError, Running, Sandbox

__all__ = [
    "Availability",
    "EndReason",
    "Ending",
    "Fabric",
    "Job",
    "Level",
    "Meeting",
    "NotEndedError",
    "Running",
    "Sandbox",
    "choose",
    "code_folder",
    "probe",
    "torchrun_argv",
]
