"""What `validator benchmarks` shows: each benchmark that is at hand, what it asks for, how ready it is."""

from pathlib import Path

from pydantic import Field
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from harness.benchmark.at_hand import benchmarks
from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.manifest import read_manifest
from harness.benchmark.mistakes import in_words, numerics_in_words
from harness.benchmark.problem import EmbeddedModel, HubModel, LocalModel
from harness.benchmark.snapshot import default_directory
from harness.errors import InputError
from harness.machine import device_names
from harness.paths import DEFAULT_HPARAMS
from harness.protocol.text import counted
from harness.records import Record


class BenchmarkAtHand(Record):
    """A benchmark that can be named with `--hparams`."""

    name: str
    file: Path
    default: bool = Field(description="taken where none is named")
    model: str = Field(description="repository of the hub, or the type of an embedded config")
    data: str = Field(description="repository of the hub, or a file that comes with the judge")
    ranks: int
    device: str = Field(description="cpu, cuda or auto")
    batch: str = Field(description="rows of a step by tokens of a row")
    optimizer: str = Field(description="all of its settings, in words")
    numerics: str = Field(description="the lowest precisions, in words")
    calibrated: bool = Field(description="its tolerances were measured on this very benchmark")
    calibrated_on: str = Field(description="the device; empty: not calibrated")
    calibrated_here: bool = Field(description="that is a device of this machine")
    snapshot: Path | None = Field(description="where it is preloaded; null: it is not")


def list_benchmarks() -> tuple[BenchmarkAtHand, ...]:
    """All that come with the judge. Raises InputError where one cannot be read."""
    here = device_names()
    return tuple(_at_hand(name, load(file), here) for name, file in benchmarks().items())


def _at_hand(name: str, loaded: LoadedHparams, here: frozenset[str]) -> BenchmarkAtHand:
    hparams = loaded.hparams
    calibration = hparams.verify.calibration if hparams.calibrated else None
    device = "" if calibration is None else calibration.device
    model, data = hparams.model, hparams.data
    return BenchmarkAtHand(
        name=name,
        file=loaded.path,
        default=loaded.path == DEFAULT_HPARAMS,
        model=_model_name(model),
        data=Path(data.file).name if data.source == "embedded" else f"{data.repo}, {data.file}",
        ranks=hparams.world.size,
        device=hparams.world.device,
        batch=f"{hparams.global_batch} x {hparams.sequence_length:,}",
        optimizer=in_words(hparams.optimizer),
        numerics=numerics_in_words(hparams.numerics),
        calibrated=calibration is not None,
        calibrated_on=device,
        calibrated_here=device in here,
        snapshot=_snapshot(loaded),
    )


def _model_name(model: EmbeddedModel | HubModel | LocalModel) -> str:
    if isinstance(model, EmbeddedModel):
        return str(model.config.get("model_type"))
    return model.repo if isinstance(model, HubModel) else Path(model.folder).name


def _snapshot(loaded: LoadedHparams) -> Path | None:
    try:
        folder = default_directory(loaded)
        read_manifest(folder)
    except InputError:
        return None
    return folder


def render(found: tuple[BenchmarkAtHand, ...]) -> RenderableType:
    """A paragraph for each, so that names are whole however narrow the terminal is."""
    lines: list[RenderableType] = []
    for each in found:
        lines.append(Text(each.name + (" (default)" if each.default else ""), style="bold"))
        lines += [Padding(Text(line), (0, 0, 0, 2)) for line in _paragraph(each)]
    hint = "--hparams NAME takes one of them; any other benchmark is a file of one's own"
    return Group(*lines, Text(hint, style="dim"))


def _paragraph(each: BenchmarkAtHand) -> tuple[str, ...]:
    calibrated = "not calibrated: its tolerances are guesses"
    if each.calibrated:
        calibrated = f"calibrated on {each.calibrated_on}"
        calibrated += "" if each.calibrated_here else ", which this machine has not"
    ranks = counted(each.ranks, "rank")
    return (
        f"{each.model} on {each.data}; {each.batch} tokens a step; {ranks} ({each.device})",
        each.optimizer,
        each.numerics,
        f"{calibrated}; {'preloaded' if each.snapshot else 'not preloaded yet'}",
    )
