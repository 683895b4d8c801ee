"""What was measured of a benchmark: every run with a cheat in it. Kept in a file, to be added to.

The file has what was measured and no verdicts: whoever calibrates anew judges the same runs again.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.errors import Code, InputError
from harness.measured_file import read_back
from harness.records import Record
from harness.reference.cheats.families import Cheat


@dataclass(frozen=True)
class RunFigures:
    """One run beside its reference.

    Attributes:
        metrics: as of a submission; its loss is the mean over all rows, which a rank may report.
        rejected_by: checks that have no tolerance, and reject it.
    """

    metrics: dict[str, float]
    rejected_by: tuple[str, ...] = ()

    def measured(self, name: str) -> float | None:
        """The metric of that name; None where it was not measured."""
        return self.metrics.get(name)

    def where(self, name: str) -> str:
        """Nothing: what was left out is known."""
        return ""


class Case(Record):
    """One cheat at one strength, or several at once."""

    cheats: tuple[Cheat, ...]
    saves: float = Field(
        description="part of the timed FLOPs that is left out; a product in half the width counts half"
    )
    saves_bytes: float = Field(description="part of the bytes between ranks that is not sent")
    metrics: dict[str, tuple[float, ...]] = Field(description="of every run")
    rejected_by: tuple[tuple[str, ...], ...] = Field(
        description="of every run, checks that have no tolerance and reject it"
    )

    @property
    def runs(self) -> tuple[RunFigures, ...]:
        """One after the other."""
        return tuple(
            RunFigures({name: values[run] for name, values in self.metrics.items()}, checks)
            for run, checks in enumerate(self.rejected_by)
        )

    @property
    def family(self) -> str:
        """In words; of several the families with + between them."""
        return " + ".join(cheat.family.replace("_", " ") for cheat in self.cheats)

    @property
    def part(self) -> str:
        """What is left out, of each family."""
        return " + ".join(f"{cheat.strength:.2%}" for cheat in self.cheats)

    @property
    def saving(self) -> str:
        """What it is done for."""
        return f"{self.saves_bytes:.2%} of bytes" if self.saves_bytes else f"{self.saves:.2%}"


class Power(Record):
    """What was measured for one benchmark."""

    benchmark: str
    benchmark_sha256: str = Field(description="of the fields that shape the noise")
    looked_at: tuple[int, float, int] = Field(
        description="attribution_samples, token_loss_share and filter_steps of its verify section"
    )
    cases: tuple[Case, ...] = ()


def nothing_yet(hparams: Hparams) -> Power:
    """Of that benchmark."""
    verify = hparams.verify
    return Power(
        benchmark=hparams.name,
        benchmark_sha256=hparams.noise_sha256(),
        looked_at=(verify.attribution_samples, verify.token_loss_share, hparams.filter_steps),
    )


def pooled(power: Power, case: Case) -> Power:
    """With the runs of one more measurement."""
    cases = {each.cheats: each for each in power.cases}
    if (before := cases.get(case.cheats)) is not None:
        case = case.model_copy(
            update={
                "metrics": {
                    name: (*before.metrics[name], *values) for name, values in case.metrics.items()
                },
                "rejected_by": (*before.rejected_by, *case.rejected_by),
            }
        )
    cases[case.cheats] = case
    return power.model_copy(update={"cases": tuple(cases.values())})


def read_measured(file: Path, loaded: LoadedHparams) -> Power:
    """What a file holds already, to be added to; nothing yet where it is not there.

    Raises InputError(BAD_ARGUMENT): it holds something else, or was measured on another benchmark.
    """
    wanted = nothing_yet(loaded.hparams)
    found = read_back(file, Power, "validator power") or wanted
    if (found.benchmark_sha256, found.looked_at) != (wanted.benchmark_sha256, wanted.looked_at):
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{file} was measured on {found.benchmark}, which trained or looked at runs in another way: "
            "name another file",
        )
    return found
