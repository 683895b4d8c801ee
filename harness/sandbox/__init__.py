"""Everything dangerous: running untrusted code, ending it, and reading what it left behind.

`choose` picks a level of isolation, `Sandbox.start` runs a `Job` at it, and the `Running` that it
returns ends with nothing left. `docs/sandbox.md` states every limit and every gap.

The readers of what a sandbox wrote (`shards`, `outbox`) are imported from their own modules: this
package is also what the supervisor process imports, so it stays within the standard library.
"""

from harness.sandbox.code import code_folder, torchrun_argv
from harness.sandbox.job import Availability, Ending, EndReason, Job, Level
from harness.sandbox.probe import choose, probe
from harness.sandbox.running import Running, Sandbox

__all__ = [
    "Availability",
    "EndReason",
    "Ending",
    "Job",
    "Level",
    "Running",
    "Sandbox",
    "choose",
    "code_folder",
    "probe",
    "torchrun_argv",
]
