"""What was measured of a benchmark: how often each cheat was found. Kept in a file, to be added to."""

from pathlib import Path

from pydantic import ValidationError

from harness.benchmark.hparams import LoadedHparams
from harness.errors import Code, InputError
from harness.files import write_whole
from harness.records import Record
from harness.reference.cheats.families import Cheat


class Case(Record):
    """One cheat at one strength, or several at once.

    Attributes:
        saves: part of the timed FLOPs that is left out; a product in half the width counts half.
        saves_bytes: part of the bytes between ranks that is not sent.
        runs, found: how many were trained, and in how many of them a check rejects.
        strict: in how many the update error is over the bound that one run of an evaluation has to meet.
        nearest: the check that is most over (or nearest to) its tolerance, in the median run.
        times: how many times its tolerance that is.
    """

    cheats: tuple[Cheat, ...]
    saves: float
    saves_bytes: float
    runs: int
    found: int
    strict: int
    nearest: str
    times: float

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
    """What was measured for one benchmark.

    Attributes:
        hparams_sha256: of its file; tolerances are part of it.
        evaluation_runs: how many an evaluation makes.
        strict_update_error: what one of them has to stay below; None: not judged.
    """

    benchmark: str
    hparams_sha256: str
    evaluation_runs: int
    strict_update_error: float | None
    cases: tuple[Case, ...]


def pooled(power: Power, case: Case) -> Power:
    """With the runs of one more measurement. The nearest check is that of the one with more runs."""
    cases = {each.cheats: each for each in power.cases}
    if (before := cases.get(case.cheats)) is not None:
        more = before if before.runs > case.runs else case
        counts = {
            name: getattr(before, name) + getattr(case, name)
            for name in ("runs", "found", "strict")
        }
        case = more.model_copy(update=counts)
    cases[case.cheats] = case
    return power.model_copy(update={"cases": tuple(cases.values())})


def read_measured(file: Path, loaded: LoadedHparams) -> Power | None:
    """What a file holds already, to be added to; None where there is none.

    Raises InputError(BAD_ARGUMENT): it holds something else, or was measured on other hparams.
    """
    try:
        found = Power.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise InputError(
            Code.BAD_ARGUMENT, f"{file} is there, and is no file of `validator power`: name another"
        ) from None
    if found.hparams_sha256 != loaded.sha256:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{file} was measured on {found.benchmark} with other hparams: name another file",
        )
    return found


def write_measured(file: Path, power: Power) -> None:
    """Whoever ends a sweep keeps what it had."""
    write_whole(file, power.model_dump_json(indent=2) + "\n")
