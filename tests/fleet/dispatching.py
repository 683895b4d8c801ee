"""`validator dispatch` for nodes that share a machine, started as a script.

They take cores from each other, so their canaries may differ, and scatter, by far more than those of
machines of their own.
"""

import sys
from dataclasses import dataclass, field

from harness.cli import main
from harness.fleet import canaries
from harness.fleet.chart import Rule


@dataclass(frozen=True)
class CoarseCanary(canaries.Canary):
    """Finds a node that is slower by several times."""

    runs: int = 2
    rule: Rule = field(default_factory=lambda: Rule(slack=0.3, calm=1.0))


if __name__ == "__main__":
    canaries.Canary = CoarseCanary  # type: ignore[misc]
    sys.argv.insert(1, "dispatch")
    main()
