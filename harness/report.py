"""What a person sees: progress while an evaluation runs, then the verdict."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from harness.errors import Verdict
from harness.phases import PhaseName
from harness.protocol.profile import MAX_OPERATIONS, PARTS, Operation, RankProfile
from harness.protocol.text import counted, one_line

if TYPE_CHECKING:
    from harness.benchmark.rules import Calibration, Tolerances
    from harness.result import EvaluationResult, RunResult
    from harness.submission.read import Remark

COLOURS = {Verdict.ACCEPTED: "green", Verdict.REJECTED: "red", Verdict.ERROR: "yellow"}
DETAIL_LINES = 25
#: Of a recorded run, side by side.
RANKS_SHOWN = 3
#: Findings that say what to do, and not what is wrong.
HELPS = ("likely_cause", "asked", "tried")

WORDS = {
    PhaseName.PREPARE: "preparing",
    PhaseName.WAIT: "waiting: another evaluation is being timed on this machine",
    PhaseName.LAUNCH: "starting the ranks",
    PhaseName.LOAD: "loading the model",
    PhaseName.SETUP: "setting up",
    PhaseName.WARMUP: "warming up on random tokens",
    PhaseName.TIMED: "timed run",
    PhaseName.OPEN: "opening the committed state",
    PhaseName.STOP: "ending the sandbox",
    PhaseName.REFERENCE: "training the trusted reference",
    PhaseName.VERIFY: "verifying",
    PhaseName.SCORE: "counting FLOPs",
}


class ProgressDisplay:
    """Lines and a spinner on stderr. Where stderr is no terminal, one line for every phase."""

    def __init__(self, quiet: bool = False, at_first: str = "") -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._at_first = at_first
        self._status: Status | None = None
        self._last = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status(self._at_first)
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def line(self, text: str) -> None:
        """Below the others; what was said just now is not said again."""
        if text == self._last:
            return
        self._last = text
        self._console.print(f"[dim]·[/dim] {escape(text)}", highlight=False)

    def moment(self, text: str) -> None:
        """What is true just now; only a terminal shows it."""
        if self._status is not None:
            self._status.update(escape(text))

    def phase(self, name: PhaseName, detail: str) -> None:
        """A phase begins."""
        words = f"{WORDS[name]}: {detail}" if detail else WORDS[name]
        self.moment(words)
        self.line(words)


def print_result(result: "EvaluationResult", path: Path | None) -> None:
    """The verdict on stdout, with the path of the JSON document; None: it was not kept."""
    console = Console()
    console.print(render(result))
    if _ran(result):
        console.print(phases_table(result))
    kept = path or "not kept, as there is no folder to write to; --json - prints it"
    console.print(f"result: {kept}", markup=False, highlight=False, soft_wrap=True)


def render(result: "EvaluationResult") -> RenderableType:
    """Verdict, runs and checks of one evaluation."""
    colour = COLOURS[result.verdict]
    head = Text.assemble(
        (result.verdict.value.upper(), f"bold {colour}"),
        f"  {result.submission.name}",
        ("" if result.verdict is Verdict.ACCEPTED else f"  [{result.code}]"),
    )
    parts: list[RenderableType] = [head, Text(result.message)]
    if result.score is not None:
        parts += [Text(), Text(_headline(result))]
    if result.runs:
        parts += [Text(), _runs_table(result.runs), _checks_table(result.runs)]
    parts += _findings(result)
    parts += [Text(f"warning: {warning}", style="yellow") for warning in result.warnings]
    if result.detail:
        parts += [Text(), Text(_quotation(result.detail), style="dim")]
    if _ran(result):
        parts += [Text(), Text(_footer(result), style="dim")]
    return Panel(
        Group(*parts), border_style=colour, title=result.benchmark.name, title_align="left"
    )


def _ran(result: "EvaluationResult") -> bool:
    """Whether there was more than preparing: a file that was refused had no ranks, and took no time."""
    return any(phase.name not in (PhaseName.PREPARE, PhaseName.WAIT) for phase in result.phases)


def _quotation(detail: str) -> str:
    """Its last lines, marked as somebody else's words: they may look like a verdict of ours."""
    lines = [line for line in detail.splitlines() if line.strip()]
    return "\n".join(f"> {line}" for line in lines[-DETAIL_LINES:])


def _headline(result: "EvaluationResult") -> str:
    score = result.score
    assert score is not None
    return (
        f"MFU {score.mfu:.2%} ({score.basis.replace('_', ' ')}; peak {score.peak_tflops:.3g} TFLOP/s "
        f"a device, {score.peak_source})   {score.tokens_per_second:,.0f} tokens/s   "
        f"{score.active_params:,} of {score.total_params:,} parameters active"
    )


def _runs_table(runs: Sequence["RunResult"]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    scored = any(run.mfu_active_params is not None for run in runs)
    mfu = ("MFU",) if scored else ()
    for name in ("run", "steps", "tokens", "seconds", "tokens/s", *mfu, "loss", "reference loss"):
        table.add_column(name, justify="right")
    for run in runs:
        loss = run.mean_reported_loss
        table.add_row(
            str(run.run + 1),
            str(run.steps),
            f"{run.tokens:,}",
            f"{run.seconds:.3f}",
            f"{run.tokens_per_second:,.0f}",
            *(() if run.mfu_active_params is None else (f"{run.mfu_active_params:.2%}",)),
            "none" if loss is None else f"{loss:.5f}",
            "" if run.reference_loss is None else f"{run.reference_loss:.5f}",
        )
    return table


def _checks_table(runs: Sequence["RunResult"]) -> Table:
    """The worst of every metric over the runs, against what is allowed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "worst", "allowed"):
        table.add_column(name, justify="left" if name == "check" else "right")
    table.add_column("")
    names = list(dict.fromkeys(metric.name for run in runs for metric in run.metrics))
    for name in names:
        metrics = [m for run in runs for m in run.metrics if m.name == name]
        # A NaN is worse than any number, and max() would lose it.
        worst = max(metrics, key=lambda m: m.measured if m.measured == m.measured else float("inf"))
        good = worst.measured <= worst.allowed
        table.add_row(
            name.replace("_", " "),
            f"{worst.measured:.2e}",
            f"{worst.allowed:.2e}",
            Text("ok", style="green") if good else Text("over", style="red"),
        )
    return table


def _findings(result: "EvaluationResult") -> list[RenderableType]:
    """What helps to mend first; then the checks, in full for the first of the runs that say the same."""
    found = [(run.run + 1, finding) for run in result.runs for finding in run.findings]
    first = [pair for pair in found if pair[1].check in HELPS]
    lines = [Text(f"{finding.check.replace('_', ' ')}: {finding.message}") for _, finding in first]
    told: dict[tuple[str, ...], int] = {}
    for run in result.runs:
        findings = [finding for finding in run.findings if finding.check not in HELPS]
        checks = tuple(finding.check for finding in findings)
        if not checks:
            continue
        if checks in told:
            names = ", ".join(dict.fromkeys(checks)).replace("_", " ")
            lines.append(Text(f"run {run.run + 1}: as run {told[checks]} ({names})"))
            continue
        told[checks] = run.run + 1
        lines += [
            Text(f"run {run.run + 1}, {finding.check.replace('_', ' ')}: {finding.message}")
            for finding in findings
        ]
    return [Text(), *lines] if lines else []


def _footer(result: "EvaluationResult") -> str:
    image = f" (image {result.benchmark.image[:19]})" if result.benchmark.image else ""
    peaks = [peak for run in result.runs for peak in run.reported_memory_bytes]
    memory = f", {max(peaks) / 2**30:.2f} GiB the most of a rank" if peaks else ""
    ranks = counted(result.world_size, "rank")
    return f"isolation {result.isolation}{image}, {ranks}{memory}"


def phases_table(result: "EvaluationResult") -> Table:
    """Where the wall time of an evaluation went."""
    total = sum(phase.seconds for phase in result.phases) or 1.0
    table = Table(title="where the time went", title_justify="left", box=None, pad_edge=False)
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    table.add_column("")
    for phase in result.phases:
        bar = "█" * round(40 * phase.seconds / total)
        clock = "  on the clock" if phase.name == PhaseName.TIMED else ""
        table.add_row(phase.name, f"{phase.seconds:.2f}", bar + clock)
    return table


def profile_table(profiles: Sequence[RankProfile], mfu: float | None) -> RenderableType:
    """Where one recorded run of each rank went, and the dearest operations, rank by rank.

    Args:
        mfu: of the judged runs; None where there is none. It is shared out like the time.
    """
    parts = Table(title="where a recorded run went", title_justify="left", box=None, pad_edge=False)
    for name in ("rank", "seconds", *PARTS, "other"):
        parts.add_column(name, justify="right")
    for rank, each in enumerate(profiles):
        shares = [getattr(each, part) / (each.seconds or 1.0) for part in (*PARTS, "other")]
        parts.add_row(str(rank), f"{each.seconds:.3f}", *(f"{share:.1%}" for share in shares))
    lines: list[RenderableType] = [parts, Text(), _dearest_operations(profiles)]
    slowest = max(profiles, key=lambda each: each.seconds)
    if mfu is not None and slowest.compute:
        computing = slowest.compute / slowest.seconds
        busy = f"{mfu / computing:.2%} while ranks compute, which is {computing:.0%} of the time"
        said = f"MFU {mfu:.2%}: {busy}"
        lines += [Text(), Text(said)]
    return Group(*lines)


def _dearest_operations(profiles: Sequence[RankProfile]) -> Table:
    """Seconds and share of a rank's run; of many ranks the slowest. A dash: not among its dearest."""
    slowest_first = sorted(range(len(profiles)), key=lambda rank: -profiles[rank].seconds)
    ranks = sorted(slowest_first[:RANKS_SHOWN])
    found = {rank: {each.name: each for each in profiles[rank].operations} for rank in ranks}
    most: dict[str, float] = {}
    for operations in found.values():
        for name, each in operations.items():
            most[name] = max(most.get(name, 0.0), each.seconds)
    table = Table(title="dearest operations", title_justify="left", box=None, pad_edge=False)
    table.add_column("operation", overflow="fold")
    for rank in ranks:
        table.add_column(f"rank {rank}", justify="right", no_wrap=True)
    for name in sorted(most, key=lambda name: -most[name])[:MAX_OPERATIONS]:
        cells = [_cost(found[rank].get(name), profiles[rank].seconds) for rank in ranks]
        table.add_row(Text(one_line(name)), *cells)
    return table


def _cost(operation: Operation | None, whole: float) -> str:
    if operation is None:
        return "–"
    return f"{operation.seconds:.3f} {operation.seconds / (whole or 1.0):6.1%}"


def calibration_table(tolerances: "Tolerances", calibration: "Calibration") -> Table:
    """Of every metric the honest noise, and the tolerance that follows."""
    from statistics import median  # which costs every command some milliseconds

    counted = [variant for variant in calibration.variants if variant.counted]
    judged = [name for name, allowed in tolerances if allowed is not None]
    table = Table(
        title=f"{calibration.runs} honest runs",
        title_justify="left",
        caption=_rests_on(calibration),
        caption_justify="left",
        box=None,
    )
    table.add_column("metric")
    for head in ("median", "worst", "tolerance", *(["mean"] if calibration.means else [])):
        table.add_column(head, justify="right")
    table.add_column("noisiest")
    for name in judged:
        values = [value for variant in counted for value in variant.values.get(name, ())]
        mean = calibration.means.get(name)
        floor = "*" if name in calibration.floors else ""
        table.add_row(
            name,
            f"{median(values):.1e}",
            f"{max(values):.1e}",
            f"{getattr(tolerances, name):.2g}{floor}",
            *([f"{mean.bound:.2g}" if mean else ""] if calibration.means else []),
            calibration.fits[name].variant,
        )
    return table


def _rests_on(calibration: "Calibration") -> str:
    rests = f"so that {calibration.false_alarms:.2%} of honest evaluations are rejected; *: a floor"
    return f"{rests}; mean: over all runs of one" if calibration.means else rests


def print_remarks(file: Path, remarks: Sequence["Remark"]) -> int:
    """The remarks of `validator check`; returns the exit status."""
    from harness.submission.read import RemarkKind

    console = Console()
    marks = {
        RemarkKind.OK: "[green]ok[/green]  ",
        RemarkKind.NOTE: "[yellow]note[/yellow]",
        RemarkKind.PROBLEM: "[red]bad[/red] ",
    }
    piped = not console.is_terminal  # a line is a remark then, for whatever reads it
    for remark in remarks:
        line = f"{marks[remark.kind]} {escape(remark.message)}"
        console.print(line, highlight=False, soft_wrap=piped)
    problems = sum(remark.kind is RemarkKind.PROBLEM for remark in remarks)
    summary = f"{problems} to mend" if problems else "nothing to mend; only a run can tell more"
    console.print(f"{one_line(file.name)}: {summary}", markup=False, highlight=False)
    return 1 if problems else 0
